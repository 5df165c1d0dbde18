package hop

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

func TestFateOfATransaction(t *testing.T) {
	own := &memory{producer: 7, epoch: 3}
	for _, tt := range []struct {
		name  string
		state string
		id    int64
		epoch int16
		err   error
		want  fate
	}{
		{name: "not ended", state: "Ongoing", id: 7, epoch: 3, want: open},
		{name: "a later one of the id", state: "Ongoing", id: 7, epoch: 4, want: unknown},
		{name: "markers are being written", state: "PrepareCommit", id: 7, epoch: 4, want: ending},
		{name: "aborted by the coordinator", state: "PrepareAbort", id: 7, epoch: 3, want: ending},
		{name: "committed", state: "CompleteCommit", id: 7, epoch: 4, want: committed},
		{name: "aborted", state: "CompleteAbort", id: 7, epoch: 4, want: aborted},
		{name: "the one before was committed", state: "CompleteCommit", id: 7, epoch: 3, want: unknown},
		{name: "one after was committed", state: "CompleteCommit", id: 7, epoch: 5, want: unknown},
		{name: "claimed since", state: "Empty", id: 7, epoch: 4, want: unknown},
		{name: "another producer", state: "CompleteCommit", id: 8, epoch: 4, want: unknown},
		{name: "the coordinator knows nothing", err: kerr.TransactionalIDNotFound, want: unknown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := fateOf(own, kadm.DescribedTransaction{State: tt.state, ProducerID: tt.id, ProducerEpoch: tt.epoch, Err: tt.err})
			if got != tt.want {
				t.Errorf("%d, not %d", got, tt.want)
			}
		})
	}
}
