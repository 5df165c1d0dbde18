package testenv

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// Secured is an Apache Kafka as careful people run it: TLS, SASL, and ACLs without which nobody may do anything. Its
// Address is a listener for the test's own administration: plain text, and everybody there is a superuser.
type Secured struct {
	*Server
	// SASL wants TLS and SASL: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 and OAUTHBEARER with unsigned tokens (Token).
	SASL string
	// SASLPlaintext is the same without TLS.
	SASLPlaintext string
	// Mutual wants TLS with a client certificate of Authority; its common name is the user.
	Mutual string
	// Expired is SASL with a server certificate that expired an hour ago.
	Expired string
	// Authority has issued the broker's certificates, and issues clients'. Stranger is one that nobody knows.
	Authority, Stranger *Authority
}

// The user of PLAIN, which a broker has in its own configuration.
const (
	PlainUser     = "plain-user"
	PlainPassword = "plain-secret"
)

// securedSettings are the beginning of its configuration; the rest is as for any test's broker.
const securedSettings = `process.roles=broker,controller
node.id=1
controller.quorum.voters=1@%[2]s
listeners=INTERNAL://%[1]s,CONTROLLER://%[2]s,SASL://%[3]s,MUTUAL://%[4]s,EXPIRED://%[5]s,SASLPLAIN://%[6]s
advertised.listeners=INTERNAL://%[1]s,SASL://%[3]s,MUTUAL://%[4]s,EXPIRED://%[5]s,SASLPLAIN://%[6]s
controller.listener.names=CONTROLLER
inter.broker.listener.name=INTERNAL
listener.security.protocol.map=INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_SSL,MUTUAL:SSL,EXPIRED:SASL_SSL,SASLPLAIN:SASL_PLAINTEXT
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=false
super.users=User:ANONYMOUS
ssl.keystore.type=PEM
ssl.keystore.location=%[7]s
ssl.truststore.type=PEM
ssl.truststore.location=%[8]s
listener.name.mutual.ssl.client.auth=required
listener.name.mutual.ssl.principal.mapping.rules=RULE:^CN=([^,]+).*$/$1/
listener.name.expired.ssl.keystore.type=PEM
listener.name.expired.ssl.keystore.location=%[9]s
connection.failed.authentication.delay.ms=10
`

// saslSettings of one listener.
const saslSettings = `listener.name.%[1]s.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER
listener.name.%[1]s.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_%[2]s="%[3]s";
listener.name.%[1]s.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.%[1]s.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.%[1]s.oauthbearer.sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";
`

// SecuredKafka is the secured Kafka that this process's tests share. Where this machine can't run one, the test is skipped.
func SecuredKafka(t testing.TB) *Secured {
	t.Helper()
	if why := noApacheKafka(); why != "" {
		t.Skip("a secured Kafka is an Apache Kafka: " + why)
	}
	s, err := shared().secured()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func noApacheKafka() string {
	if os.Getenv(EnvKafka) == "kfake" {
		return EnvKafka + " asks for kfake"
	}
	return apacheKafka(light).missing()
}

// StartSecuredKafka starts a secured Apache Kafka.
func StartSecuredKafka(ctx context.Context, say Say) (*Secured, error) {
	if m := apacheKafka(light).missing(); m != "" {
		return nil, errors.New("start a secured Kafka: " + m)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	jars, err := kafkaJars(ctx, say)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "reeve-test-secured-")
	if err != nil {
		return nil, err
	}
	s, err := runSecured(ctx, dir, jars)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return s, nil
}

func runSecured(ctx context.Context, dir, jars string) (*Secured, error) {
	addrs, err := FreeAddrs(6)
	if err != nil {
		return nil, err
	}
	s := &Secured{SASL: addrs[2], Mutual: addrs[3], Expired: addrs[4], SASLPlaintext: addrs[5]}
	if s.Authority, err = NewAuthority(dir, "authority"); err != nil {
		return nil, err
	}
	if s.Stranger, err = NewAuthority(dir, "stranger"); err != nil {
		return nil, err
	}
	good, err := s.Authority.keystore("broker", time.Now().Add(24*time.Hour))
	if err != nil {
		return nil, err
	}
	old, err := s.Authority.keystore("expired-broker", time.Now().Add(-time.Hour))
	if err != nil {
		return nil, err
	}
	var config strings.Builder
	fmt.Fprintf(&config, securedSettings, addrs[0], addrs[1], addrs[2], addrs[3], addrs[4], addrs[5], good, s.Authority.File, old)
	for _, listener := range []string{"sasl", "expired", "saslplain"} {
		fmt.Fprintf(&config, saslSettings, listener, PlainUser, PlainPassword)
	}
	config.WriteString(commonSettings(dir))
	s.Server, err = runKafka(ctx, dir, jars, light, addrs[0], config.String())
	return s, err
}

// runKafka formats the storage and starts a broker with a configuration; addr answers without authentication.
func runKafka(ctx context.Context, dir, jars, jvm, addr, configuration string) (*Server, error) {
	config, err := formatKafka(ctx, dir, jars, configuration)
	if err != nil {
		return nil, err
	}
	c, err := serveKafka(ctx, dir, jars, jvm, addr, config)
	if err != nil {
		return nil, err
	}
	return &Server{Address: addr, About: "Apache Kafka " + kafkaVersion(jars), PID: c.pid(), stop: c.stop}, nil
}

// formatKafka writes a configuration to dir and formats the storage that it names.
func formatKafka(ctx context.Context, dir, jars, configuration string) (config string, err error) {
	config = filepath.Join(dir, "server.properties")
	if err := os.WriteFile(config, []byte(configuration), 0o600); err != nil {
		return "", err
	}
	format := java(ctx, jars, light, "kafka.tools.StorageTool", "format", "-t", "cmVldmUtdGVzdC1rYWZrYQ", "-c", config)
	if out, err := format.CombinedOutput(); err != nil {
		return "", fmt.Errorf("format storage: %w\n%s", err, out)
	}
	return config, nil
}

// serveKafka starts a broker on formatted storage and waits until it answers. dir goes when it ends.
func serveKafka(ctx context.Context, dir, jars, jvm, addr, config string) (*child, error) {
	c, err := startChild(dir, "KILL", nil, java(ctx, jars, jvm, "kafka.Kafka", config).Args...)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if err := c.await(ctx, func(ctx context.Context) error { return pingKafka(ctx, addr) }); err != nil {
		return nil, err
	}
	return c, nil
}

// Token is an unsigned token for OAUTHBEARER, for a user and a time.
func Token(user string, lifetime time.Duration) string {
	now := time.Now()
	encode := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	claims := fmt.Sprintf(`{"sub":%q,"iat":%d,"exp":%d}`, user, now.Add(-time.Minute).Unix(), now.Add(lifetime).Unix())
	return encode(`{"alg":"none"}`) + "." + encode(claims) + "."
}

// AddUser makes a user of SCRAM, for both hashes, and returns once the broker lets him in: what the controller has answered
// reaches it a moment later.
func (s *Secured) AddUser(ctx context.Context, user, password string) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(s.Address))
	if err != nil {
		return err
	}
	defer cl.Close()
	for _, mechanism := range []kadm.ScramMechanism{kadm.ScramSha256, kadm.ScramSha512} { // one request takes a user once
		altered, err := kadm.NewClient(cl).AlterUserSCRAMs(ctx, nil, []kadm.UpsertSCRAM{{User: user, Mechanism: mechanism, Iterations: 4096, Password: password}})
		if err == nil {
			err = altered.Error()
		}
		if err != nil {
			return fmt.Errorf("add user %s: %w", user, err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for _, hash := range []func(scram.Auth) sasl.Mechanism{scram.Auth.AsSha256Mechanism, scram.Auth.AsSha512Mechanism} {
		if err := s.letsIn(ctx, hash(scram.Auth{User: user, Pass: password})); err != nil {
			return fmt.Errorf("add user %s: %w", user, err)
		}
	}
	return nil
}

// letsIn waits until the broker takes somebody's credentials.
func (s *Secured) letsIn(ctx context.Context, who sasl.Mechanism) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := pingKafka(ctx, s.SASLPlaintext, kgo.SASL(who))
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}
