package kafka

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/internal/config"
	"github.com/reeve-run/reeve/internal/testenv"
	"github.com/reeve-run/reeve/pkg/security"
	"github.com/reeve-run/reeve/pkg/topics"
)

const scramUser, scramPassword = "scram-user", "scram-s3cret"

// secured is the shared secured Kafka with the users of these tests, which may do everything.
func secured(t *testing.T) *testenv.Secured {
	t.Helper()
	k := testenv.SecuredKafka(t)
	if err := k.AddUser(t.Context(), scramUser, scramPassword); err != nil {
		t.Fatal(err)
	}
	allow(t, k, "t", scramUser, testenv.PlainUser, "token-user", "cert-user")
	return k
}

// allow lets users do everything with the topics whose names have a prefix.
func allow(t *testing.T, k *testenv.Secured, prefix string, users ...string) {
	t.Helper()
	principals := make([]string, len(users))
	for i, u := range users {
		principals[i] = "User:" + u
	}
	give(t, k, kadm.NewACLs().Topics(prefix).ResourcePatternType(kadm.ACLPatternPrefixed).
		Operations(kadm.OpAll).Allow(principals...).AllowHosts("*"))
}

func admin(t *testing.T, k *testenv.Secured) *kadm.Client {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(k.Address))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return kadm.NewClient(cl)
}

func tokenFile(t *testing.T, token string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestEveryWayIntoASecuredKafkaWorks(t *testing.T) {
	k := secured(t)
	cert, key, err := k.Authority.Issue("cert-user", time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	token := testenv.Token("token-user", time.Hour)
	ca := k.Authority.File
	for name, way := range map[string]struct {
		address  string
		security security.Config
	}{
		"PLAIN":                 {k.SASL, security.Config{TLSCA: ca, Mechanism: security.Plain, Username: testenv.PlainUser, Password: testenv.PlainPassword}},
		"SCRAM-SHA-256":         {k.SASL, security.Config{TLSCA: ca, Mechanism: security.ScramSHA256, Username: scramUser, Password: scramPassword}},
		"SCRAM-SHA-512":         {k.SASL, security.Config{TLSCA: ca, Mechanism: security.ScramSHA512, Username: scramUser, Password: scramPassword}},
		"SCRAM without TLS":     {k.SASLPlaintext, security.Config{Mechanism: security.ScramSHA512, Username: scramUser, Password: scramPassword}},
		"a password in a file":  {k.SASL, security.Config{TLSCA: ca, Mechanism: security.ScramSHA512, Username: scramUser, Password: security.Secret("file:" + tokenFile(t, scramPassword))}},
		"OAUTHBEARER":           {k.SASL, security.Config{TLSCA: ca, Mechanism: security.OAuthBearer, Password: security.Secret(token)}},
		"OAUTHBEARER in a file": {k.SASL, security.Config{TLSCA: ca, Mechanism: security.OAuthBearer, Password: security.Secret("file:" + tokenFile(t, token))}},
		"a client certificate":  {k.Mutual, security.Config{TLSCA: ca, TLSCert: cert, TLSKey: key}},
	} {
		t.Run(name, func(t *testing.T) {
			if err := way.security.Check(time.Now()); err != nil {
				t.Fatal(err)
			}
			cl, err := Connect(t.Context(), config.Kafka{Brokers: []string{way.address}, Security: way.security}, quiet())
			if err != nil {
				t.Fatal(err)
			}
			defer cl.Close()
			topic := testenv.Unique()
			if err := EnsureTopics(t.Context(), cl, 1, Topic{Name: topic, Partitions: 1}); err != nil {
				t.Fatal(err)
			}
			if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte("v")}).FirstErr(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestWhatKeepsAProcessOutIsNamedWithItsRemedyAtOnce(t *testing.T) {
	k := secured(t)
	stranger, strangerKey, err := k.Stranger.Issue("cert-user", time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	old, oldKey, err := k.Authority.Issue("old-user", time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	ca := k.Authority.File
	scram := security.Config{TLSCA: ca, Mechanism: security.ScramSHA512, Username: scramUser, Password: scramPassword}
	with := func(change func(*security.Config)) security.Config {
		c := scram
		change(&c)
		return c
	}
	for name, c := range map[string]struct {
		address  string
		security security.Config
		says     []string
		late     bool // a broker that says nothing is asked again for a while
	}{
		"wrong password":        {k.SASL, with(func(c *security.Config) { c.Password = "wr0ng" }), []string{"refused the credentials", scramUser, security.EnvPassword}, false},
		"wrong password, PLAIN": {k.SASL, with(func(c *security.Config) { c.Mechanism, c.Password = security.Plain, "wr0ng" }), []string{"refused the credentials", "PLAIN"}, false},
		"expired token": {k.SASL, security.Config{TLSCA: ca, Mechanism: security.OAuthBearer, Password: security.Secret(testenv.Token("token-user", -time.Second))},
			[]string{"refused the token", security.EnvPassword}, false},
		"untrusted authority":        {k.SASL, with(func(c *security.Config) { c.TLSCA = k.Stranger.File }), []string{"authority that isn't trusted", "CN=authority", security.EnvTLSCA}, false},
		"not a system authority":     {k.SASL, with(func(c *security.Config) { c.TLSCA = security.SystemCA }), []string{"authority that isn't trusted", `"system" now`}, false},
		"expired broker":             {k.Expired, scram, []string{"expired on " + time.Now().Add(-time.Hour).UTC().Format("2006-01-02"), "expired-broker"}, false},
		"a stranger's certificate":   {k.Mutual, security.Config{TLSCA: ca, TLSCert: stranger, TLSKey: strangerKey}, []string{"refused the client's certificate", security.EnvTLSCert}, false},
		"an expired certificate":     {k.Mutual, security.Config{TLSCA: ca, TLSCert: old, TLSKey: oldKey}, []string{security.EnvTLSCert, "expired on"}, false},
		"no certificate":             {k.Mutual, security.Config{TLSCA: ca}, []string{"may want a client certificate", security.EnvTLSCert}, false},
		"TLS where there is none":    {k.SASLPlaintext, scram, []string{"doesn't speak TLS", "REEVE_KAFKA_BROKERS"}, true},
		"no TLS where it is needed":  {k.SASL, with(func(c *security.Config) { c.TLSCA = "" }), []string{"speaks TLS", security.EnvTLSCA}, true},
		"no SASL where it is needed": {k.SASLPlaintext, security.Config{}, []string{"wants SASL", security.EnvMechanism}, true},
		"a mechanism that isn't there": {k.Mutual, with(func(c *security.Config) { c.TLSCA = ca; c.TLSCert, c.TLSKey = issue(t, k, "cert-user") }),
			[]string{"doesn't offer the mechanism"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			limit := time.Minute
			if c.late {
				limit = 6 * time.Second
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			var logged bytes.Buffer
			cl, err := Connect(ctx, config.Kafka{Brokers: []string{c.address}, Security: c.security}, slog.New(slog.NewTextHandler(&logged, nil)))
			if err == nil {
				cl.Close()
				t.Fatal("it was let in")
			}
			if refused := (*Refused)(nil); !errors.As(err, &refused) {
				t.Errorf("%T", err)
			}
			for _, says := range append(c.says, c.address) {
				if !strings.Contains(err.Error(), says) {
					t.Errorf("the error doesn't say %q: %v", says, err)
				}
			}
			if !c.late && time.Since(began) > limit/2 {
				t.Errorf("it took %s: it was tried again in vain", time.Since(began))
			}
			for _, secret := range []string{scramPassword, "wr0ng"} {
				if strings.Contains(err.Error()+logged.String()+fmt.Sprintf("%+v %#v", c.security, c.security), secret) {
					t.Errorf("a password is told: %v\n%s\n%+v", err, logged.String(), c.security)
				}
			}
		})
	}
}

func issue(t *testing.T, k *testenv.Secured, name string) (cert, key string) {
	t.Helper()
	cert, key, err := k.Authority.Issue(name, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func TestACertificateIsRotatedUnderARunningClient(t *testing.T) {
	k := secured(t)
	cert, key := issue(t, k, "nobody")
	way := security.Config{TLSCA: k.Authority.File, TLSCert: cert, TLSKey: key}
	dial := way.Dialer()
	user := func() string {
		cl, err := kgo.NewClient(kgo.SeedBrokers(k.Mutual), kgo.Dialer(dial))
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		listed, err := kadm.NewClient(cl).ListTopics(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(listed.Names(), " ")
	}
	topic := testenv.Unique()
	if _, err := admin(t, k).CreateTopic(t.Context(), 1, 1, nil, topic); err != nil {
		t.Fatal(err)
	}
	if seen := user(); strings.Contains(seen, topic) {
		t.Errorf("nobody sees %s", seen)
	}
	newCert, newKey := issue(t, k, "cert-user")
	for from, to := range map[string]string{newCert: cert, newKey: key} {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	if seen := user(); !strings.Contains(seen, topic) {
		t.Errorf("the certificate in the file is another one's now, and he sees only %q", seen)
	}
}

// Who has the rights that `reeve acls --mend` lists ends a transaction that a broker forgot to end; without them nobody does.
func TestTheRightsToMendAreThoseToEndAForgottenTransaction(t *testing.T) {
	k := secured(t)
	user := testenv.Unique()
	if err := k.AddUser(t.Context(), user, "pw"); err != nil {
		t.Fatal(err)
	}
	i := Installation{Names: topics.Names{Prefix: testenv.Unique()}}
	status := i.Names.Status()
	if _, err := admin(t, k).CreateTopic(t.Context(), 1, 1, nil, status); err != nil {
		t.Fatal(err)
	}
	stuck, err := kgo.NewClient(kgo.SeedBrokers(k.Address), kgo.TransactionalID(user), kgo.DefaultProduceTopic(status), kgo.TransactionTimeout(10*time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	defer stuck.Close()
	if err := stuck.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := stuck.ProduceSync(t.Context(), kgo.StringRecord("v")).FirstErr(); err != nil {
		t.Fatal(err)
	}
	cl, err := Connect(t.Context(), config.Kafka{Brokers: []string{k.SASL}, Security: security.Config{TLSCA: k.Authority.File, Mechanism: security.ScramSHA256, Username: user, Password: "pw"}}, quiet())
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	look := func(topic string) (kadm.DescribedProducers, error) {
		set := kadm.TopicsSet{}
		set.Add(topic)
		found, err := adm.DescribeProducers(t.Context(), set)
		var out kadm.DescribedProducers
		found.EachPartition(func(p kadm.DescribedProducersPartition) { err = errors.Join(err, p.Err) })
		found.EachProducer(func(p kadm.DescribedProducer) {
			if out == nil {
				out = kadm.DescribedProducers{}
			}
			out[p.ProducerID] = p
		})
		return out, err
	}
	mark := func(p kadm.DescribedProducer) error {
		at := kadm.TopicsSet{}
		at.Add(status, 0)
		written, err := adm.WriteTxnMarkers(t.Context(), kadm.TxnMarkers{ProducerID: p.ProducerID, ProducerEpoch: p.ProducerEpoch, CoordinatorEpoch: max(p.CoordinatorEpoch, 0), Topics: at})
		written.EachPartition(func(p kadm.TxnMarkersPartitionResponse) { err = errors.Join(err, p.Err) })
		return err
	}
	if _, err := look(status); !security.Denied(err) {
		t.Errorf("without the right to look: %v", err)
	}
	if err := mark(kadm.DescribedProducer{ProducerID: 1}); !security.Denied(err) {
		t.Errorf("without the right to write markers: %v", err)
	}
	grant(t, k, user, i.Mending(config.Dispatcher))
	if _, err := look("__consumer_offsets"); security.Denied(err) {
		t.Errorf("groups' offsets: %v", err)
	}
	open, err := look(status)
	tick, end := time.NewTicker(20*time.Millisecond), time.After(time.Minute)
	defer tick.Stop()
	for security.Denied(err) { // a client keeps what it was told of a topic for a moment
		select {
		case <-tick.C:
			open, err = look(status)
		case <-end:
			t.Fatalf("with the right to look: %v", err)
		}
	}
	if err != nil || len(open) != 1 {
		t.Fatalf("%v, %v", open, err)
	}
	for _, p := range open {
		if err := mark(p); err != nil {
			t.Errorf("with the rights: %v", err)
		}
	}
	ends, err := admin(t, k).ListEndOffsets(t.Context(), status)
	if err != nil {
		t.Fatal(err)
	}
	stable, err := admin(t, k).ListCommittedOffsets(t.Context(), status)
	if err != nil || stable[status][0].Offset != ends[status][0].Offset || ends[status][0].Offset != 2 {
		t.Errorf("readers stand at %d of %d, %v", stable[status][0].Offset, ends[status][0].Offset, err)
	}
}

// grant gives a user rights.
func grant(t *testing.T, k *testenv.Secured, user string, rights []Right) {
	t.Helper()
	ops := map[string]kadm.ACLOperation{Read: kadm.OpRead, Alter: kadm.OpAlter}
	for _, r := range rights {
		b := kadm.NewACLs().Allow("User:" + user).AllowHosts("*").ResourcePatternType(kadm.ACLPatternLiteral)
		if r.Prefixed {
			b = b.ResourcePatternType(kadm.ACLPatternPrefixed)
		}
		if r.Resource == OnCluster {
			b = b.Clusters()
		} else {
			b = b.Topics(r.Name)
		}
		for _, op := range r.Operations {
			b = b.Operations(ops[op])
		}
		give(t, k, b)
	}
}

// give makes rights and waits until the broker goes by them: what the controller has answered reaches it a moment later.
func give(t *testing.T, k *testenv.Secured, rights *kadm.ACLBuilder) {
	t.Helper()
	made, err := admin(t, k).CreateACLs(t.Context(), rights)
	if err != nil || len(made) == 0 {
		t.Fatal(made, err)
	}
	for _, m := range made {
		if m.Err != nil {
			t.Fatal(m.Err)
		}
	}
	tick, end := time.NewTicker(20*time.Millisecond), time.After(time.Minute)
	defer tick.Stop()
	for {
		shown, err := admin(t, k).DescribeACLs(t.Context(), rights)
		if err == nil && !slices.ContainsFunc(shown, func(r kadm.DescribeACLsResult) bool { return r.Err != nil || len(r.Described) == 0 }) {
			return
		}
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("the broker shows %+v, %v", shown, err)
		}
	}
}

// Topics that an operator made are used as they are, by a process that may not make any.
func TestTopicsMadeElsewhereNeedNoRightToCreate(t *testing.T) {
	k := secured(t)
	user := testenv.Unique()
	if err := k.AddUser(t.Context(), user, "pw"); err != nil {
		t.Fatal(err)
	}
	names := topics.Names{Prefix: testenv.Unique()}
	wanted := []Topic{ControlTopic(names), StatusTopic(names), OutcomesTopic(names)}
	give(t, k, kadm.NewACLs().Topics(names.Control(), names.Status(), names.Outcomes()).
		ResourcePatternType(kadm.ACLPatternLiteral).Operations(kadm.OpRead, kadm.OpWrite).Allow("User:"+user).AllowHosts("*"))
	cl, err := Connect(t.Context(), config.Kafka{Brokers: []string{k.SASL}, Security: security.Config{TLSCA: k.Authority.File, Mechanism: security.ScramSHA256, Username: user, Password: "pw"}}, quiet())
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	err = EnsureTopics(t.Context(), cl, 1, wanted...)
	var not *NotCreated
	if !errors.As(err, &not) || len(not.Topics) != 3 || !strings.Contains(err.Error(), "reeve topics --commands") {
		t.Fatalf("without the topics: %v", err)
	}
	for _, w := range wanted {
		if _, err := admin(t, k).CreateTopic(t.Context(), w.Partitions, 1, nil, w.Name); err != nil {
			t.Fatal(err)
		}
	}
	if err := EnsureTopics(t.Context(), cl, 1, wanted...); err != nil {
		t.Errorf("with the topics: %v", err)
	}
	var logged bytes.Buffer
	rights := Tolerance{Logger: slog.New(slog.NewTextHandler(&logged, nil))}
	for range 3 {
		raise := RaiseMaxBytes(t.Context(), cl, names.Outcomes(), 32<<20)
		trim := Trim(t.Context(), cl, map[string]map[int32]int64{names.Outcomes(): {0: 1}})
		if raise == nil || trim == nil {
			t.Fatal("it is allowed")
		}
		if err := errors.Join(rights.Accept("raise", "large ones wait", raise), rights.Accept("trim", "it grows", trim)); err != nil {
			t.Errorf("it isn't seen as a missing right: %v", err)
		}
	}
	if n := strings.Count(logged.String(), "\n"); n != 2 {
		t.Errorf("%d lines for two missing rights:\n%s", n, logged.String())
	}
}
