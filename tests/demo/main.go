package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/reeve-run/reeve/pkg/topics"
)

const (
	defaultCopies = 30
	// stallLimit is how long no outcome may come while some are missing.
	stallLimit = 60 * time.Second
	agentsDir  = "deployments/demo/agents"
	events     = "deployments/demo/events/github-webhooks.ndjson"
)

func main() { os.Exit(run()) }

func run() int {
	// The death signal of the child goes with the thread that started it, so that thread must stay.
	runtime.LockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	s, err := readSettings(os.Args[1:], os.Getenv)
	if err != nil {
		return 2 // flag has said why
	}
	switch err := (&demo{settings: s, out: os.Stdout}).run(ctx); {
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "demo: interrupted")
		return 130
	case err != nil:
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 1
	}
	return 0
}

// settings is what the demo is told by flags and environment.
type settings struct {
	reeve  string // the reeve binary
	copies int
	rate   int  // deliveries a second
	exit   bool // end after the summary
	attach bool // use what runs already
	// interrupted says that services may be killed meanwhile. A task that ran at that moment is run again as its next
	// attempt, so how often a task was retried is not compared.
	interrupted bool
	url         string // of the registry, where attached
	brokers     string // of another Kafka; empty for the embedded one
	prefix      string // of Reeve's topics; empty to choose one
}

func readSettings(args []string, getenv func(string) string) (settings, error) {
	s := settings{exit: getenv("DEMO_EXIT") == "1", url: getenv("REEVE_URL"), brokers: getenv("REEVE_KAFKA_BROKERS"), prefix: getenv("REEVE_TOPIC_PREFIX")}
	f := flag.NewFlagSet("reeve-demo", flag.ContinueOnError)
	f.StringVar(&s.reeve, "reeve", "bin/reeve", "the reeve binary")
	f.IntVar(&s.copies, "copies", defaultCopies, "how often each delivery is published")
	f.IntVar(&s.rate, "rate", 300, "deliveries a second")
	f.BoolVar(&s.attach, "attach", false, "use the Reeve at REEVE_URL (REEVE_API_KEY is its key) and the Kafka at REEVE_KAFKA_BROKERS, where the demo's agents can run; end after the summary")
	f.BoolVar(&s.interrupted, "interrupted", false, "services may be killed meanwhile: don't compare how often tasks were retried")
	if err := f.Parse(args); err != nil {
		return s, err
	}
	if s.copies < 1 || s.rate < 1 {
		fmt.Fprintln(f.Output(), "-copies and -rate must be at least 1")
		return s, errors.New("flag out of range")
	}
	if s.attach && (s.url == "" || s.brokers == "") {
		fmt.Fprintln(f.Output(), "-attach needs REEVE_URL and REEVE_KAFKA_BROKERS")
		return s, errors.New("nothing to attach to")
	}
	return s, nil
}

type demo struct {
	settings
	out io.Writer
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.out, format+"\n", args...) }

// run is the demo from start to end. The error says what went wrong, or that not every task ended as expected.
func (d *demo) run(ctx context.Context) (err error) {
	as, err := d.prepare(ctx)
	if err != nil {
		return err
	}
	deliveries, err := readPlan(as, d.copies)
	if err != nil {
		return err
	}
	dev, err := d.start(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stop(dev, err == nil)) }()

	before, err := createTopics(ctx, dev.brokers, as)
	if err != nil {
		return err
	}
	if err := d.apply(ctx, dev, as); err != nil {
		return err
	}
	if err := awaitAgents(ctx, dev, d.reeve, as); err != nil {
		return err
	}
	if before > 0 {
		d.say("  %d deliveries of earlier runs stand on the topics: the agents get them too, and the table leaves them out", before)
	}
	d.say("\nPublishing %d webhook deliveries, %d tasks, at %d a second with a plain Kafka producer\n",
		len(deliveries), countTasks(deliveries, as), d.rate)
	ledger, ps, err := d.publishAndFollow(ctx, dev, deliveries, as)
	if err != nil {
		return err
	}
	if err := d.conclude(ctx, dev, ledger, ps, as); err != nil || d.exit || d.attach {
		return err
	}
	d.say("\nThe dashboard is at %s — Ctrl-C ends the demo", dev.url())
	select {
	case <-ctx.Done():
		return nil
	case <-dev.ended:
		return fmt.Errorf("reeve dev ended by itself: see %s", dev.logPath)
	}
}

// prepare looks for what the agents need and builds the one that is written in Go.
func (d *demo) prepare(ctx context.Context) ([]agent, error) {
	if _, err := os.Stat(agentsDir); err != nil {
		return nil, fmt.Errorf("find %s: run the demo from the root of the repository, by make demo", agentsDir)
	}
	if d.attach { // its agents run elsewhere, and what they need is there or isn't
		return agents(true), nil
	}
	if _, err := exec.LookPath("python3"); err != nil {
		return nil, errors.New("python3 is missing, and three of the demo's agents are written in Python: install Python 3.9 or later")
	}
	_, noNode := exec.LookPath("node")
	if noNode != nil {
		d.say("node is missing: the agent pull-request-size is left out")
	}
	build := exec.CommandContext(ctx, "go", "build", "-o", "release-notes", ".")
	build.Dir = filepath.Join(agentsDir, "release_notes")
	build.Env = append(os.Environ(), "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the agent release-notes: %w\n%s", err, out)
	}
	return agents(noNode == nil), nil
}

func readPlan(as []agent, copies int) ([]delivery, error) {
	f, err := os.Open(events)
	if err != nil {
		return nil, fmt.Errorf("open events: %w", err)
	}
	defer f.Close()
	ds, err := readDeliveries(f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", events, err)
	}
	return plan(ds, as, copies), nil
}

func countTasks(ds []delivery, as []agent) int {
	n := 0
	for _, d := range ds {
		for _, a := range as {
			if a.Topic == d.topic() {
				n++
			}
		}
	}
	return n
}

// apply registers the agent that needs Node, and where the demo is attached also those that reeve dev registers
// otherwise.
func (d *demo) apply(ctx context.Context, dev *devProcess, as []agent) error {
	var files []string
	if d.attach {
		files = append(files, "agents.yaml")
	}
	if slices.ContainsFunc(as, func(a agent) bool { return a.Name == "pull-request-size" }) {
		files = append(files, "agents-node.yaml")
	}
	for _, file := range files {
		if err := dev.cli(ctx, d.reeve, nil, "apply", "-f", filepath.Join(agentsDir, file)); err != nil {
			return err
		}
	}
	return nil
}

// publishAndFollow publishes the deliveries and follows the outcomes until every task has one, or none comes any more.
func (d *demo) publishAndFollow(ctx context.Context, dev *devProcess, ds []delivery, as []agent) (*ledger, []published, error) {
	ctx, cancel := context.WithCancel(ctx)
	var owned sync.WaitGroup
	defer owned.Wait()
	defer cancel()

	pub, err := newPublisher(dev.brokers)
	if err != nil {
		return nil, nil, err
	}
	defer pub.close()
	outcomes, err := newWatcher(dev.brokers, topics.Names{Prefix: dev.prefix}.Outcomes())
	if err != nil {
		return nil, nil, err
	}
	published := make(chan error, 1)
	owned.Go(func() { published <- pub.publish(ctx, ds, d.rate) })
	owned.Go(func() { outcomes.run(ctx) })

	l, show, tasks := newLedger(), newScreen(d.out), countTasks(ds, as)
	l.interrupted = d.interrupted
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	last, sent := time.Now(), false
	for {
		select {
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-dev.ended:
			return nil, nil, fmt.Errorf("reeve dev ended by itself: see %s", dev.logPath)
		case err := <-published:
			if err != nil {
				return nil, nil, err
			}
			sent = true
		case batch := <-outcomes.batches:
			last = time.Now()
			for _, o := range batch.outcomes {
				l.add(o, batch.at)
				show.outcome(o, batch.at)
			}
		case now := <-tick.C:
			ps := pub.published()
			done := l.finished(ps, as)
			show.progress(done, tasks, now)
			if sent && (done == tasks || now.Sub(last) > stallLimit) {
				return l, ps, nil
			}
		}
	}
}

// conclude prints the closing table and compares what happened with what had to happen, and with the registry's figures.
func (d *demo) conclude(ctx context.Context, dev *devProcess, l *ledger, ps []published, as []agent) error {
	rows, faults := l.settle(ps, as)
	d.say("\nFrom publish to visible outcome; a task that was retried waited a second for each retry.\n")
	if err := writeTable(d.out, rows); err != nil {
		return err
	}
	d.say("")
	differences, err := compareFigures(ctx, dev, d.reeve, l.totals())
	if err != nil {
		return err
	}
	faults = append(faults, differences...)
	if len(faults) == 0 {
		d.say("Every task ended as its input says it must, and the registry counted the same.")
		return nil
	}
	const shown = 5
	for _, f := range faults[:min(len(faults), shown)] {
		d.say("  ✗ %s", f)
	}
	return fmt.Errorf("%d things are not as expected (%d shown above); the log is %s", len(faults), min(len(faults), shown), dev.logPath)
}

// stop ends reeve dev; its data goes only where all went well. What the demo was attached to goes on.
func (d *demo) stop(dev *devProcess, clean bool) error {
	if d.attach {
		return nil
	}
	d.say("Stopping reeve dev")
	if err := dev.stop(); err != nil {
		return err
	}
	if dev.ownName {
		if err := deleteTopics(dev.brokers, dev.prefix+"."); err != nil {
			return err
		}
	}
	if clean {
		return os.RemoveAll(dev.data)
	}
	d.say("Its data and log stay in %s", dev.data)
	return nil
}

// oneLine keeps a text to one line of at most n characters.
func oneLine(s string, n int) string {
	s, _, _ = strings.Cut(s, "\n")
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}
