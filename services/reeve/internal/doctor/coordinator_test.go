package doctor

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/reeve-run/reeve/internal/kafka"
)

func TestACoordinatorThatIsBeingMadeIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &patience{left: coordinatorLimit}
		asked := 0
		fresh := func(context.Context) error {
			if asked++; asked < 9 {
				return kerr.CoordinatorNotAvailable
			}
			return kerr.GroupIDNotFound
		}
		if err := p.ask(t.Context(), fresh); !errors.Is(err, kerr.GroupIDNotFound) || asked != 9 || p.left != coordinatorLimit {
			t.Errorf("%v after %d questions, %s of patience left", err, asked, p.left)
		}
		never := func(context.Context) error { return kerr.CoordinatorNotAvailable }
		began := time.Now()
		err := p.ask(t.Context(), never)
		if took := time.Since(began); !errors.Is(err, kerr.CoordinatorNotAvailable) || took != coordinatorLimit {
			t.Errorf("%v after %s", err, took)
		}
		if took := time.Since(began); p.ask(t.Context(), never) == nil || time.Since(began) != took {
			t.Error("a second question waits although patience has ended")
		}
		if text := remedy(kafka.OnGroup, err); !strings.Contains(text, "offsets.topic.replication.factor") {
			t.Errorf("the remedy is %q", text)
		}
	})
}
