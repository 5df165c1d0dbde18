package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/command"
	"github.com/reeve-run/reeve/pkg/control"
	"github.com/reeve-run/reeve/pkg/hop"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/status"
)

// running is what exists between Start and Shutdown.
type running struct {
	kafka    []kgo.Opt
	client   *kgo.Client // requests and reports
	events   *kgo.Client // what the program publishes
	pool     *hop.Pool
	reporter *status.Reporter
	alerts   chan Alert    // for Options.OnAlert
	told     chan struct{} // closed when it is called no more

	life    context.Context // ends when agents are to stop
	end     context.CancelFunc
	drain   context.Context // bounds how long they take for it; set before life ends
	beats   context.Context // of heartbeats and alerts: ends when the agents have stopped
	endBeat context.CancelFunc
	loops   sync.WaitGroup // control, announcements, the node's name
	work    sync.WaitGroup // keepers
	beating sync.WaitGroup
}

// connect makes the clients and the producers.
func (r *Runner) connect(ctx context.Context) (*running, error) {
	o := slices.Concat([]kgo.Opt{
		kgo.SeedBrokers(r.opts.Brokers...), kgo.ClientID(status.ClientID(service)), kgo.WithLogger(r.opts.Security.Log(r.log)), kgo.DisableClientMetrics(),
	}, r.opts.Security.Opts(), r.opts.Kafka)
	run := &running{kafka: o, alerts: make(chan Alert, 64), told: make(chan struct{})}
	limited, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	var err error
	run.client, err = kgo.NewClient(append(slices.Clone(o), kgo.RecordDeliveryTimeout(reportLimit), kgo.MaxBufferedRecords(1000), kgo.MetadataMinAge(100*time.Millisecond))...)
	if err != nil {
		return nil, fmt.Errorf("configure the Kafka client: %w", err)
	}
	if _, err = kadm.NewClient(run.client).ListBrokers(limited); err == nil {
		// With the cancellation Publish ends when its context does, also if the broker went away in the middle of a record.
		run.events, err = kgo.NewClient(append(slices.Clone(o), kgo.ProducerLinger(0), kgo.MetadataMinAge(100*time.Millisecond), kgo.UnknownTopicRetries(1),
			kgo.AllowIdempotentProduceCancellation())...)
	}
	run.reporter = status.NewReporter(run.client, r.names, service, r.opts.Node, r.log)
	if err == nil {
		run.pool, err = hop.NewPool(limited, hop.PoolConfig{Opts: o, Names: r.names, Service: service, Node: r.opts.Node, Logger: r.log, Withheld: run.reporter.Unended})
	}
	if err != nil {
		run.close()
		if p, ok := r.opts.Security.Diagnose(err); ok {
			return nil, fmt.Errorf("connect to Kafka at %s: %s: %s: %w", strings.Join(r.opts.Brokers, ","), p.What, p.Remedy, err)
		}
		return nil, fmt.Errorf("reach Kafka at %s: start it, or give its address in Options.Brokers or REEVE_KAFKA_BROKERS: %w", strings.Join(r.opts.Brokers, ","), err)
	}
	run.life, run.end = context.WithCancel(context.Background())
	run.beats, run.endBeat = context.WithCancel(context.Background())
	run.drain = context.Background()
	return run, nil
}

func (run *running) close() {
	if run.pool != nil {
		run.pool.Close()
	}
	if run.events != nil {
		run.events.Close()
	}
	run.client.Close()
}

// holdName ends the Runner when a newer program holds its node's name. Where the two have no agent in common, no work group
// would tell, and their producers would go on fencing each other's.
func (r *Runner) holdName(run *running) {
	if err := hop.HoldName(run.life, run.client, r.names, service, r.opts.Node, r.log); err != nil {
		r.fail(run.reporter.Replaced(run.life, run.kafka, err))
	}
}

// follow reads the control topic.
func (r *Runner) follow(run *running) {
	err := control.Follow(run.life, run.kafka, r.names, r.log, (*desires)(r))
	if run.life.Err() == nil {
		r.fail(fmt.Errorf("follow the agents' desired state: %w", err))
	}
}

// obey follows the commands topic, once it is known what agents there are.
func (r *Runner) obey(run *running) {
	select {
	case <-run.life.Done():
		return
	case <-r.read:
	}
	err := command.NewFollower(command.Config{Opts: run.kafka, Names: r.names, Handlers: r.handlers(), Logger: r.log}).Run(run.life)
	if run.life.Err() == nil {
		r.fail(fmt.Errorf("follow the commands: %w", err))
	}
}

// desires is the Runner as it hears of agents.
type desires Runner

var _ control.Handler = (*desires)(nil)

// Ready takes over the desired state as of the start.
func (d *desires) Ready(all map[string]*spec.Agent) {
	r := (*Runner)(d)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known = all
	close(r.read)
	for key, k := range r.keepers {
		k.desire(all[key])
	}
}

// Changed takes over one agent's newer state.
func (d *desires) Changed(key string, a *spec.Agent) {
	r := (*Runner)(d)
	r.mu.Lock()
	defer r.mu.Unlock()
	if a == nil {
		delete(r.known, key)
	} else {
		r.known[key] = a
	}
	if k := r.keepers[key]; k != nil {
		k.desire(a)
	}
}

// beat says that the program lives, and what its agents do.
func (r *Runner) beat(run *running) {
	t := time.NewTicker(status.NodeInterval)
	defer t.Stop()
	for {
		run.reporter.Node(r.reports(), false)
		for _, k := range r.all() {
			k.lookOverdue()
		}
		select {
		case <-run.beats.Done():
			return
		case <-t.C:
		}
	}
}

// tellAlerts calls OnAlert where no lock is held, so that it may ask the Runner.
func (r *Runner) tellAlerts(run *running) {
	for {
		select {
		case a := <-run.alerts:
			r.opts.OnAlert(a)
		case <-run.beats.Done():
			return
		}
	}
}

// alertsEnded waits for the last call of OnAlert. The error says that it goes on.
func (run *running) alertsEnded() error {
	t := time.NewTimer(flushLimit)
	defer t.Stop()
	select {
	case <-run.told:
		return nil
	case <-t.C:
		return errors.New("Options.OnAlert goes on after the stop: let it return, and call Shutdown elsewhere")
	}
}

func (r *Runner) reports() []status.AgentReport {
	var out []status.AgentReport
	for _, k := range r.all() {
		if report, ok := k.reportNow(); ok {
			out = append(out, report)
		}
	}
	return out
}
