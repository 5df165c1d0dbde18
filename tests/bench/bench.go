package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/reeve-run/reeve/tests/harness"

	"github.com/reeve-run/reeve/internal/testenv"
)

// Config is a run of the bench.
type Config struct {
	Events int           // a throughput round
	Rounds int           // of everything, interleaved. Defaults to 3 of throughput and 5 of the rest
	Rates  []int         // events/s at which latency is measured.
	During time.Duration // of a latency round.
	Part   string        // one of the parts; empty is all
	Only   string        // leaves out the contestants whose names don't contain it, and then the shares
	Dir    string        // for binaries and logs
	Out    io.Writer     // for the results
	Say    func(format string, args ...any)
}

type bench struct {
	Config
	bin             string
	dir             string
	kafka, postgres *testenv.Server
	dropSchema      func() error
}

// contestant is one of the things compared.
type contestant struct {
	name  string
	make  func(context.Context) (*subject, error)
	rates []rate
	times map[int][]latency
}

// part is one of the things that are measured.
type part struct {
	name   string
	rounds int // by default
	run    func(*bench, context.Context) error
}

func parts() []part {
	return []part{{"throughput", 3, (*bench).contest}, {"retries", 5, (*bench).retries}, {"neighbours", 5, (*bench).neighbours}}
}

// Run measures and prints. An error may say that something was measured and is beyond its bound.
func Run(ctx context.Context, c Config) error {
	b := &bench{Config: c, dir: c.Dir, bin: filepath.Join(c.Dir, "bin")}
	if len(b.contestants()) == 0 {
		return fmt.Errorf("no contestant's name contains %q: they are called %q", c.Only, names((&bench{}).contestants()))
	}
	if !slices.ContainsFunc(parts(), func(p part) bool { return c.Part == "" || p.name == c.Part }) {
		return fmt.Errorf("there is no part %q: they are throughput, retries and neighbours", c.Part)
	}
	if err := harness.Build(ctx, b.bin, "bench/child", "bench/bare", "bench/worker", "sweep/agent"); err != nil {
		return err
	}
	var err error
	if b.kafka, err = testenv.StartServerKafka(ctx, c.Say); err != nil {
		return err
	}
	defer func() { _ = b.kafka.Stop() }()
	if b.postgres, err = testenv.StartPostgres(ctx, c.Say); err != nil {
		return err
	}
	defer func() { _ = b.postgres.Stop() }()
	c.Say("on %s and %s", b.kafka.About, b.postgres.About)
	var errs []error
	for _, p := range parts() {
		if c.Part != "" && c.Part != p.name {
			continue
		}
		if b.Rounds = c.Rounds; b.Rounds == 0 {
			b.Rounds = p.rounds
		}
		if err := p.run(b, ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.name, err))
		}
	}
	return errors.Join(errs...)
}

// contest measures throughput and latency beside the bare copy.
func (b *bench) contest(ctx context.Context) error {
	if err := b.warmUp(ctx); err != nil {
		return err
	}
	all := b.contestants()
	for round := range b.Rounds {
		for _, x := range all {
			if err := b.round(ctx, round, x); err != nil {
				return fmt.Errorf("%s, round %d: %w", x.name, round+1, err)
			}
		}
	}
	b.print(all)
	return nil
}

func names(all []*contestant) []string {
	var names []string
	for _, x := range all {
		names = append(names, x.name)
	}
	return names
}

// warmEvents is how many events everybody moves uncounted at least: a broker that has just started compiles its code while
// it runs, and until it has moved some millions an event costs it three times as much, in transactions four times.
const warmEvents = 1_000_000

// warmUp lets everybody run once uncounted, and for a while at the highest rate: small transactions run through other code
// than large ones.
func (b *bench) warmUp(ctx context.Context) error {
	b.Say("warming up")
	quick := *b
	quick.Rates, quick.Say = quick.Rates[max(0, len(quick.Rates)-1):], func(string, ...any) {}
	quick.Events = max(quick.Events, warmEvents)
	for _, x := range quick.contestants() {
		if err := quick.round(ctx, 0, x); err != nil {
			return fmt.Errorf("warm up %s: %w", x.name, err)
		}
	}
	return nil
}

func (b *bench) contestants() []*contestant {
	kind := func(name string, make func(context.Context, bool) (*subject, error), stdio bool) *contestant {
		return &contestant{name: name, make: func(ctx context.Context) (*subject, error) { return make(ctx, stdio) }, times: map[int][]latency{}}
	}
	all := []*contestant{
		kind("bare copy, no children", b.bare, false),
		kind("Reeve, in-process", b.reeve, false),
		kind("bare copy, 4 children", b.bare, true),
		kind("Reeve, 4 children", b.reeve, true),
	}
	return slices.DeleteFunc(all, func(x *contestant) bool { return !strings.Contains(x.name, b.Only) })
}

// round measures one contestant: how much it moves, and then, on the same running processes, how fast it answers.
func (b *bench) round(ctx context.Context, n int, x *contestant) (err error) {
	s, err := x.make(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close(), b.drop()) }()
	r, err := b.throughput(ctx, s, b.Events)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, logs(s))
	}
	x.rates = append(x.rates, r)
	b.Say("round %d: %-24s %7.0f events/s, CPU-s per million: client %.1f %s, broker %.1f, registry %.1f, Postgres %.1f", n+1, x.name, r.PerSecond, r.Client, r.parts(), r.Broker, r.Apart, r.Database)
	for _, perSecond := range b.Rates {
		l, err := b.latency(ctx, s, perSecond, b.During)
		if err != nil {
			return fmt.Errorf("%w\n%s", err, logs(s))
		}
		x.times[perSecond] = append(x.times[perSecond], l)
		b.Say("round %d: %-24s at %d/s p50 %s p99 %s%s", n+1, x.name, perSecond, tenths(l.P50), tenths(l.P99), l.stages())
	}
	return nil
}

// drop removes the schema of the last registry.
func (b *bench) drop() error {
	if b.dropSchema == nil {
		return nil
	}
	drop := b.dropSchema
	b.dropSchema = nil
	return drop()
}

func logs(s *subject) string {
	text := ""
	for _, p := range s.movers {
		if p != nil {
			text += p.Name + ": " + p.Log() + "\n"
		}
	}
	return text
}

// print writes medians, and Reeve's beside the bare copy's.
func (b *bench) print(all []*contestant) {
	p := func(format string, args ...any) { fmt.Fprintf(b.Out, format+"\n", args...) }
	p("medians of %d rounds, %d events each, on %s", b.Rounds, b.Events, b.kafka.About)
	p("%-24s %10s %8s %22s %22s %20s", "", "events/s", "of bare", "CPU-s/M client+broker", "client / broker", "registry / Postgres")
	for i, x := range all {
		m := medianRate(x.rates)
		share := ""
		if i%2 == 1 && b.Only == "" {
			share = fmt.Sprintf("%.0f %%", 100*m.PerSecond/medianRate(all[i-1].rates).PerSecond)
		}
		p("%-24s %10.0f %8s %22.1f %22s %20s", x.name, m.PerSecond, share, m.Client+m.Broker, fmt.Sprintf("%.1f / %.1f", m.Client, m.Broker), fmt.Sprintf("%.1f / %.1f", m.Apart, m.Database))
	}
	for _, perSecond := range b.Rates {
		for _, x := range all {
			if ls := x.times[perSecond]; len(ls) > 0 {
				p("%-24s at %5d/s: publish → outcome p50 %s, p99 %s", x.name, perSecond,
					tenths(median(ls, func(l latency) time.Duration { return l.P50 })), tenths(median(ls, func(l latency) time.Duration { return l.P99 })))
			}
		}
	}
}

func medianRate(rs []rate) rate {
	return rate{
		PerSecond: median(rs, func(r rate) float64 { return r.PerSecond }),
		Client:    median(rs, func(r rate) float64 { return r.Client }),
		Broker:    median(rs, func(r rate) float64 { return r.Broker }),
		Apart:     median(rs, func(r rate) float64 { return r.Apart }),
		Database:  median(rs, func(r rate) float64 { return r.Database }),
	}
}

func median[T any, V cmp.Ordered](xs []T, of func(T) V) V {
	vs := make([]V, len(xs))
	for i, x := range xs {
		vs[i] = of(x)
	}
	slices.Sort(vs)
	return vs[len(vs)/2]
}

func tenths(d time.Duration) string { return fmt.Sprintf("%.1f ms", d.Seconds()*1000) }

// parts writes Each.
func (r rate) parts() string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(r.Each)) {
		parts = append(parts, fmt.Sprintf("%s %.1f", name, r.Each[name]))
	}
	return "(" + strings.Join(parts, ", ") + ")"
}

// stages writes the medians of the stages.
func (l latency) stages() string {
	if l.Stages == nil {
		return ""
	}
	names := []string{"dispatched", "started", "ended", "seen"}
	var parts []string
	for i, d := range l.Stages {
		parts = append(parts, fmt.Sprintf("%s +%s", names[i], tenths(d)))
	}
	return " (medians of the stages: " + strings.Join(parts, ", ") + ")"
}
