package app

import (
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/internal/config"
	"github.com/reeve-run/reeve/internal/kafka"
	"github.com/reeve-run/reeve/internal/postgres"
	"github.com/reeve-run/reeve/internal/testenv"
	"github.com/reeve-run/reeve/migrations"
	"github.com/reeve-run/reeve/services/registry/internal/agents"
)

// A retry of an agent that nobody knows goes round its tier for ever: as long as old ones wait somewhere, and as long as the
// deletion isn't through, the agent stays known.
func TestAnAgentIsBuriedOnceNothingOfItIsLeft(t *testing.T) {
	cfg := config.Default(config.Registry)
	cfg.Kafka.Brokers, cfg.Kafka.RetryTiers = strings.Split(testenv.Kfake(t).Address, ","), []time.Duration{time.Second, 5 * time.Second, 30 * time.Second, time.Hour}
	names := cfg.Kafka.Names()
	cl, err := kgo.NewClient(kgo.SeedBrokers(cfg.Kafka.Brokers...), kgo.MetadataMinAge(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	db, err := postgres.Open(t.Context(), testenv.Schema(t), postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if err := migrations.Up(t.Context(), db.DB); err != nil {
		t.Fatal(err)
	}
	p := &parts{cfg: Config{Config: cfg, Logger: slog.New(slog.DiscardHandler)}, db: db, client: cl, store: agents.NewStore(db, agents.Rules{Tiers: cfg.Kafka.RetryTiers}, func() {})}
	var entries []json.RawMessage
	for _, name := range []string{"alive", "simple", "whole"} {
		entries = append(entries, json.RawMessage(`{"topic":"t","name":"`+name+`","command":"x"}`))
	}
	if _, err := p.store.Apply(t.Context(), entries, agents.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]agents.DeleteOptions{"simple": {}, "whole": {Group: true}} {
		if _, err := p.store.Delete(t.Context(), "t", name, o, 0, agents.Actor{}); err != nil {
			t.Fatal(err)
		}
	}
	buried := func(what string, at time.Time, want string) {
		t.Helper()
		if err := p.bury(t.Context(), at); err != nil {
			t.Fatal(err)
		}
		var got []string
		if err := db.SelectContext(t.Context(), &got, `SELECT name FROM agents WHERE buried ORDER BY name`); err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: %v are buried, %v; want %q", what, got, err, want)
		}
	}
	later := time.Now().Add(buryAfter + 2*time.Hour)
	buried("a day after", time.Now().Add(24*time.Hour), "")
	buried("so long after that its last retries are due no longer", later.Add(-90*time.Minute), "")
	tier := names.Retry(time.Hour)
	if err := kafka.EnsureTopics(t.Context(), cl, -1, kafka.RetryTopics(names, []time.Duration{time.Hour})...); err != nil {
		t.Fatal(err)
	}
	old := &kgo.Record{Topic: tier, Value: []byte("old"), Timestamp: later.Add(-48 * time.Hour)}
	fresh := &kgo.Record{Topic: tier, Partition: old.Partition, Value: []byte("of another agent"), Timestamp: later.Add(-time.Minute)}
	for _, r := range []*kgo.Record{old, fresh} {
		if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	buried("while an old retry waits", later, "")
	var at kadm.Offsets
	at.Add(kadm.Offset{Topic: tier, Partition: old.Partition, At: old.Offset + 1, LeaderEpoch: -1})
	if err := kadm.NewClient(cl).CommitAllOffsets(t.Context(), names.RetryGroup(time.Hour), at); err != nil {
		t.Fatal(err)
	}
	buried("while what was asked for is being deleted", later, "simple")
	if err := p.store.Cleaned(t.Context(), "t", "whole", 2, nil); err != nil {
		t.Fatal(err)
	}
	buried("once that is done", later, "simple whole")
	if _, err := p.store.Apply(t.Context(), entries[1:2], agents.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	buried("when one has come back", later, "whole")
}
