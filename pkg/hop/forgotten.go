package hop

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Forgotten reports whether Kafka has no position of a group on a topic: it forgets those of a group that has had no
// members for offsets.retention.minutes. Whoever knows that there was one must not join, since it would begin elsewhere.
func Forgotten(ctx context.Context, cl *kgo.Client, group, topic string) (bool, error) {
	fetched, err := kadm.NewClient(cl).FetchOffsets(ctx, group)
	if errors.Is(err, kerr.GroupIDNotFound) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("fetch offsets of group %s: %w", group, err)
	}
	for _, o := range fetched[topic] {
		if o.Err != nil || o.At >= 0 {
			return false, nil
		}
	}
	return true, nil
}

// ForgottenError says what is waited for where Kafka has forgotten a group's positions.
type ForgottenError struct{ Group string }

func (e *ForgottenError) Error() string {
	return fmt.Sprintf("Kafka has forgotten the positions of the group %s, as it does when a group has had no members for long (offsets.retention.minutes): nothing begins before the registry has put them back, so that no event is run twice or skipped; see that a registry runs", e.Group)
}
