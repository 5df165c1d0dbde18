package positions

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/internal/testenv"
	"github.com/reeve-run/reeve/pkg/topics"
)

// Where the members of a group are faster than the registry, only they can commit. That is worth a word where its positions
// were kept, and not at the first start of an installation.
func TestOnlyKeptPositionsThatMembersBeganWithoutAreWarnedOf(t *testing.T) {
	brokers := kgo.SeedBrokers(testenv.Kfake(t).Address)
	names := topics.Names{Prefix: testenv.Unique()}
	retries, g := names.Outcomes()+"-retries", names.Outcomes()+"-group"
	cl, err := kgo.NewClient(brokers)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if _, err := kadm.NewClient(cl).CreateTopics(t.Context(), 1, 1, nil, names.Outcomes(), retries); err != nil {
		t.Fatal(err)
	}
	assigned := make(chan struct{}, 1)
	member, err := kgo.NewClient(brokers, kgo.ConsumerGroup(g), kgo.ConsumeTopics(retries), kgo.DisableAutoCommit(),
		kgo.OnPartitionsAssigned(func(context.Context, *kgo.Client, map[string][]int32) { assigned <- struct{}{} }))
	if err != nil {
		t.Fatal(err)
	}
	defer member.Close()
	<-assigned

	var log bytes.Buffer
	k := &Keeper{Client: cl, Opts: []kgo.Opt{brokers}, Names: names, Logger: slog.New(slog.NewTextHandler(&log, nil)), kept: map[string]*copied{}, told: map[string]bool{}}
	forgotten := []seen{{group: group{kind: ofRetries, name: g, topic: retries}, known: true}}
	if !k.putBack(t.Context(), forgotten) || log.Len() > 0 {
		t.Errorf("nothing was kept: %s", log.String())
	}
	k.kept[g] = &copied{topic: retries}
	if k.putBack(t.Context(), forgotten) || !strings.Contains(log.String(), "has members already (1)") {
		t.Errorf("its positions were kept: %s", log.String())
	}
}
