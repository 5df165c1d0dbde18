package dispatch

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/reeve-run/reeve/pkg/hop"
)

// awaited is a rule that lets nothing pass and says when it has got a partition.
type awaited struct {
	Purge
	assigned chan int32
}

func (r *awaited) Assigned(a hop.Assignment, _ [16]byte) { r.assigned <- a.Partition }
func (r *awaited) Released(int32)                        {}

// The group's first word may come while NewCarrier has not returned yet. With -race this fails where the two aren't in order.
func TestACarrierKnowsItsMemberBeforeItsFirstPartition(t *testing.T) {
	env := environment(t)
	if _, err := kadm.NewClient(env.Client).CreateTopic(t.Context(), 1, 1, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	rule := &awaited{assigned: make(chan int32, 1)}
	c, err := NewCarrier(CarrierConfig{
		Member: hop.MemberConfig{Opts: env.Opts, Names: env.Names, Group: "g", Topic: "orders", Service: env.Service, Node: env.Node},
		Rule:   rule, Logger: quiet(),
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Member().Close()
	<-rule.assigned
}
