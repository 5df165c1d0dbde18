package hop_test

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/security"
)

// A right that goes missing under a running member is told once and waited for.
func TestAMissingRightIsToldOnceAndWaitedFor(t *testing.T) {
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.EnableACLs(), kfake.SeedTopics(1, "in"), kfake.Superuser("SCRAM-SHA-256", "admin", "a"),
		kfake.User("SCRAM-SHA-256", "u", "p",
			kfake.ACL{Resource: kmsg.ACLResourceTypeTopic, Name: "in", Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: kmsg.ACLOperationDescribe, Allow: true},
			kfake.ACL{Resource: kmsg.ACLResourceTypeGroup, Name: "g", Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: kmsg.ACLOperationAll, Allow: true}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	as := func(user, password string) []kgo.Opt {
		return []kgo.Opt{kgo.SeedBrokers(k.ListenAddrs()...), kgo.SASL(scram.Auth{User: user, Pass: password}.AsSha256Mechanism())}
	}
	admin, err := kgo.NewClient(as("admin", "a")...)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	told := make(chan error, 100)
	m, err := hop.NewMember(hop.MemberConfig{Opts: as("u", "p"), Group: "g", Topic: "in", Service: "s", Node: "n", Handler: newHandler(), Denied: func(err error) { told <- err }})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	records := make(chan int, 10)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	defer func() { cancel(); <-done }()
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if fs, err := m.Poll(ctx, 10); err == nil {
				records <- fs.NumRecords()
				m.AllowRebalance()
			}
		}
	}()
	adm := kadm.NewClient(admin)
	right := func() *kadm.ACLBuilder {
		return kadm.NewACLs().Topics("in").ResourcePatternType(kadm.ACLPatternLiteral).Operations(kadm.OpRead).Allow("User:u").AllowHosts("*")
	}
	for range 2 { // first it may not take its partitions over, then not fetch
		if first := <-told; !security.Denied(first) {
			t.Fatalf("%v", first)
		}
		select {
		case again := <-told:
			t.Errorf("it is told again: %v", again)
		case <-time.After(1500 * time.Millisecond): // the pause and a try
		}
		if made, err := adm.CreateACLs(t.Context(), right()); err != nil || made[0].Err != nil {
			t.Fatal(made, err)
		}
		if err := admin.ProduceSync(t.Context(), &kgo.Record{Topic: "in", Value: []byte("v")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if n := <-records; n != 1 {
			t.Errorf("%d records", n)
		}
		if again := <-told; again != nil {
			t.Errorf("it isn't taken back: %v", again)
		}
		if gone, err := adm.DeleteACLs(t.Context(), right()); err != nil || len(gone[0].Deleted) != 1 {
			t.Fatal(gone, err)
		}
	}
}
