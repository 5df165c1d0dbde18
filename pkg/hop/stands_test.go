package hop

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

func TestAPartitionStandsStillBelowWhereItEnded(t *testing.T) {
	for _, tt := range []struct {
		ends, stable map[int32]int64
		want         string
	}{
		{map[int32]int64{0: 7, 1: 9}, map[int32]int64{0: 7, 1: 12}, "[]"},
		{map[int32]int64{0: 7, 1: 9, 2: 4}, map[int32]int64{0: 6, 1: 9, 2: 0}, "[{0 6} {2 0}]"},
		{map[int32]int64{0: 7}, map[int32]int64{}, "[]"}, // nothing is known of it
		{nil, map[int32]int64{0: 7}, "[]"},
	} {
		if got := fmt.Sprint(standing(tt.ends, tt.stable)); got != tt.want {
			t.Errorf("%v, %v: %s", tt.ends, tt.stable, got)
		}
	}
}

func TestAPersonIsToldWhereReadersStandAndWhatToDo(t *testing.T) {
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	if got := withheldMessage([]*withheld{{topic: "t", since: since}}); got != "" {
		t.Errorf("nothing stands, and it says %q", got)
	}
	w := &withheld{topic: "reeve.outcomes", since: since, stuck: []place{{3, 17}, {4, 18}}}
	got := withheldMessage([]*withheld{w})
	for _, says := range []string{"reeve.outcomes/3 at offset 17 since 2026-01-02T03:04:05Z", "reeve.outcomes/4 at offset 18", "Alter on the cluster", "reeve acls --mend",
		"kafka-transactions.sh --bootstrap-server HOST:PORT abort --topic reeve.outcomes --partition 3 --start-offset 17"} {
		if !strings.Contains(got, says) {
			t.Errorf("it doesn't say %q: %s", says, got)
		}
	}
	if strings.Contains(got, "lost") {
		t.Errorf("what was aborted is lost: %s", got)
	}
	w.last.committed = true
	for len(w.stuck) < 9 {
		w.stuck = append(w.stuck, place{5, int64(len(w.stuck))})
	}
	if got = withheldMessage([]*withheld{w}); !strings.Contains(got, "and 4 more") || !strings.Contains(got, "what it had committed is lost") {
		t.Errorf("%s", got)
	}
}

// Who may only write to a topic sees from outside whether its readers stand still.
func TestWhoMayNotLookAtProducersSeesWhereReadersStand(t *testing.T) {
	acl := func(op kmsg.ACLOperation) kfake.ACL {
		return kfake.ACL{Resource: kmsg.ACLResourceTypeTopic, Name: "out", Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: op, Allow: true}
	}
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.EnableACLs(), kfake.SeedTopics(2, "out"), kfake.Superuser("SCRAM-SHA-256", "admin", "a"),
		kfake.User("SCRAM-SHA-256", "u", "p", acl(kmsg.ACLOperationWrite), acl(kmsg.ACLOperationDescribe)))
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	as := func(user, password string, more ...kgo.Opt) *kgo.Client {
		cl, err := kgo.NewClient(append(more, kgo.SeedBrokers(k.ListenAddrs()...), kgo.SASL(scram.Auth{User: user, Pass: password}.AsSha256Mechanism()))...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(cl.Close)
		return cl
	}
	stuck := as("admin", "a", kgo.TransactionalID("x"), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic("out"))
	if err := stuck.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := stuck.ProduceSync(t.Context(), &kgo.Record{Partition: 1, Value: []byte("v")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	adm, began := kadm.NewClient(as("u", "p")), time.Now()
	w := &withheld{topic: "out", since: began}
	for _, step := range []struct {
		after time.Duration
		stuck string
		over  bool
		end   bool // of the transaction, behind it
	}{{0, "[]", false, false}, {withheldGrace, "[{1 0}]", false, true}, {withheldGrace, "[]", true, false}} {
		over, err := w.look(t.Context(), adm, began.Add(step.after))
		if err != nil || over != step.over || fmt.Sprint(w.stuck) != step.stuck {
			t.Errorf("after %s: %v stands, over %v, %v", step.after, w.stuck, over, err)
		}
		if step.end {
			if err := stuck.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
				t.Fatal(err)
			}
		}
	}
	if over, err := (&withheld{topic: offsetsTopic, since: began}).look(t.Context(), adm, began); !over {
		t.Errorf("a topic that may not even be seen is looked at for ever: %v", err)
	}
}
