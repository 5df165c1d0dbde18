package commands

import (
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/status"
	"github.com/reeve-run/reeve/pkg/topics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func desk(t *testing.T) (*Desk, *kgo.Client) {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.ConsumeTopics(topics.Names{}.Commands()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	if _, err := kadm.NewClient(cl).CreateTopic(t.Context(), 1, 1, nil, topics.Names{}.Commands()); err != nil {
		t.Fatal(err)
	}
	return New(cl, topics.Names{}), cl
}

var ask = command.Command{Verb: command.Cancel, Topic: "orders", Agent: "bill", Task: "orders/0/1", Actor: "ann"}

func TestWhoIssuesACommandHearsWhatBecomesOfIt(t *testing.T) {
	d, cl := desk(t)
	go func() {
		fs := cl.PollFetches(t.Context())
		fs.EachRecord(func(r *kgo.Record) {
			c, err := command.Decode(r)
			if err != nil {
				t.Error(err)
			}
			d.Heard(status.CommandResult{ID: "another", State: status.CommandDone})
			d.Heard(status.CommandResult{ID: c.ID, State: status.CommandAccepted})
			d.Heard(status.CommandResult{ID: c.ID, State: status.CommandDone, Message: "it is cancelled"})
		})
	}()
	c, r, err := d.Issue(t.Context(), ask, time.Hour, time.Minute)
	if err != nil || c.ID == "" || c.Expires.Sub(c.At) != time.Hour || r == nil || r.State != status.CommandDone || r.Message != "it is cancelled" {
		t.Errorf("%+v, %+v, %v", c, r, err)
	}
}

func TestAWaitForNobodysAnswerEnds(t *testing.T) {
	d, _ := desk(t)
	if c, r, err := d.Issue(t.Context(), ask, time.Hour, 10*time.Millisecond); err != nil || r != nil || c.ID == "" {
		t.Errorf("%+v, %+v, %v", c, r, err)
	}
	for i := range 100 {
		d.Heard(status.CommandResult{ID: strconv.Itoa(i)}) // nobody waits, nothing blocks
	}
	if _, _, err := d.Issue(t.Context(), ask, 13*time.Hour, 0); err == nil {
		t.Error("a command that lives too long was issued")
	}
}
