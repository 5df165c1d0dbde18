package doctor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/reeve-run/reeve/internal/kafka"
)

const (
	// coordinatorLimit is how long all questions together wait for coordinators: a cluster that never had a group or a
	// transaction makes the topic that keeps them when it is first asked about one, which takes seconds.
	coordinatorLimit = 10 * time.Second
	coordinatorAgain = 250 * time.Millisecond
)

// patience waits for coordinators that aren't there yet, so long in all and not so long for each.
type patience struct{ left time.Duration }

// ask asks until there is a coordinator that answers, or patience has ended. It gives the question's last error.
func (p *patience) ask(ctx context.Context, question func(context.Context) error) error {
	began := time.Now()
	end := time.NewTimer(p.left)
	defer end.Stop()
	again := time.NewTicker(coordinatorAgain)
	defer again.Stop()
	for {
		err := question(ctx)
		if !noCoordinator(err) {
			return err
		}
		select {
		case <-again.C:
			continue
		case <-end.C:
		case <-ctx.Done():
		}
		p.left = max(p.left-time.Since(began), 0)
		return fmt.Errorf("no broker answers for it yet: %w", err)
	}
}

func noCoordinator(err error) bool {
	return errors.Is(err, kerr.CoordinatorNotAvailable) || errors.Is(err, kerr.CoordinatorLoadInProgress) || errors.Is(err, kerr.NotCoordinator)
}

// remedy is what to do about a question that got no answer, "" where the error says it all.
func remedy(resource kafka.Resource, err error) string {
	if !noCoordinator(err) {
		return ""
	}
	topic, setting := "__consumer_offsets", "offsets.topic.replication.factor"
	if resource == kafka.OnTxnID {
		topic, setting = "__transaction_state", "transaction.state.log.replication.factor"
	}
	return fmt.Sprintf("the cluster is still making its topic %s, or can't: run this again in a minute; if it stays, see that the brokers' %s is at most the number of brokers, and their log", topic, setting)
}
