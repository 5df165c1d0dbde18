package kafka

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/reeve-run/reeve/internal/config"
	"github.com/reeve-run/reeve/pkg/security"
)

const (
	connectLimit = 10 * time.Second       // Connect tries this long to reach a broker, which may be starting too
	connectEvery = 500 * time.Millisecond // and waits this long between two tries
)

// Unreachable says that no broker answers; Where is the list of their addresses.
type Unreachable struct {
	Where string
	Err   error
}

func (e *Unreachable) Error() string {
	return fmt.Sprintf("reach Kafka at %s: no broker answered within %s: start it, or give its address in REEVE_KAFKA_BROKERS: %v", e.Where, connectLimit, e.Err)
}

// Unwrap gives the client's error.
func (e *Unreachable) Unwrap() error { return e.Err }

// ExitCode is the exit code of a process that ends for it.
func (e *Unreachable) ExitCode() int { return 5 }

// Refused says that a broker answers and doesn't let this process in, or that it isn't one to be trusted. Where is the list
// of the addresses.
type Refused struct {
	Where   string
	Problem security.Problem
	Err     error
}

func (e *Refused) Error() string {
	return fmt.Sprintf("connect to Kafka at %s: %s: %s: %v", e.Where, e.Problem.What, e.Problem.Remedy, e.Err)
}

// Unwrap gives the client's error.
func (e *Refused) Unwrap() error { return e.Err }

// Options are the options of every client: where the brokers are, how they are reached, who asks, and where warnings go.
func Options(cfg config.Kafka, logger *slog.Logger) []kgo.Opt {
	return append([]kgo.Opt{
		kgo.SeedBrokers(cfg.Brokers...),
		kgo.ClientID("reeve"),
		kgo.WithLogger(cfg.Security.Log(logger)),
		kgo.DisableClientMetrics(),
	}, cfg.Security.Opts()...)
}

// Connect makes a client after it has made sure that a broker answers within 10 s, lets the process in, and that the
// cluster has transactions of version 2, which Reeve's hops rest on. The error is an *Unreachable or a *Refused where it is
// about the connection; it says where it looked and what to do. What no second try can change ends it at once.
func Connect(ctx context.Context, cfg config.Kafka, logger *slog.Logger) (*kgo.Client, error) {
	cl, err := kgo.NewClient(append(Options(cfg, logger), kgo.MetadataMinAge(100*time.Millisecond))...)
	if err != nil {
		return nil, fmt.Errorf("configure the Kafka client for %s: %w", strings.Join(cfg.Brokers, ","), err)
	}
	if err := check(ctx, cl, cfg); err != nil {
		cl.Close()
		return nil, err
	}
	return cl, nil
}

func check(ctx context.Context, cl *kgo.Client, cfg config.Kafka) error {
	where := strings.Join(cfg.Brokers, ",")
	resp, err := ask(ctx, cl, cfg.Security)
	if problem, ok := cfg.Security.Diagnose(err); ok {
		return &Refused{Where: where, Problem: problem, Err: err}
	}
	if err != nil {
		return &Unreachable{Where: where, Err: err}
	}
	if level := transactions(resp); level < 2 {
		return fmt.Errorf("use Kafka at %s: its feature transaction.version is %d and Reeve needs 2: run Kafka 4.0 or later, and raise the feature with kafka-features upgrade --feature transaction.version=2", where, level)
	}
	return nil
}

// ask asks for the brokers' versions until one answers. A listener that wants SASL answers that to anybody, and nothing
// else, so that it is asked for metadata as well.
func ask(ctx context.Context, cl *kgo.Client, how security.Config) (*kmsg.ApiVersionsResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	tick := time.NewTicker(connectEvery)
	defer tick.Stop()
	var last error
	for {
		resp, err := askOnce(ctx, cl)
		if err == nil {
			return resp, nil
		}
		if problem, ok := how.Diagnose(err); ok && !problem.Guess {
			return nil, err
		}
		if last == nil || ctx.Err() == nil { // the end of the time is no news
			last = err
		}
		select {
		case <-ctx.Done():
			return nil, last
		case <-tick.C:
		}
	}
}

func askOnce(ctx context.Context, cl *kgo.Client) (*kmsg.ApiVersionsResponse, error) {
	req := kmsg.NewPtrApiVersionsRequest()
	req.ClientSoftwareName, req.ClientSoftwareVersion = "reeve", "1"
	resp, err := req.RequestWith(ctx, cl)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		return nil, err
	}
	metadata := kmsg.NewPtrMetadataRequest()
	metadata.Topics = []kmsg.MetadataRequestTopic{}
	_, err = metadata.RequestWith(ctx, cl)
	return resp, err
}

// transactions is the level of transactions that the whole cluster has agreed on.
func transactions(resp *kmsg.ApiVersionsResponse) int16 {
	for _, f := range resp.FinalizedFeatures {
		if f.Name == "transaction.version" {
			return f.MaxVersionLevel
		}
	}
	return 0
}
