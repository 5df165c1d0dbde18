package sweep

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Report is what a sweep found.
type Report struct {
	Verdict
	Blows     int
	Least     int             // unsettled tasks that a blow found, at the least
	Resumed   []time.Duration // from a restart to the first work of the restarted node
	TakenOver time.Duration   // of a supervisor that was killed for good
	Leftovers []string        // processes that outlived a kill by 5 s
	Faults    []error         // what else went wrong
}

// Err is nil where nothing went wrong.
func (r *Report) Err() error {
	errs := slices.Clone(r.Faults)
	if r.Failures > 0 {
		errs = append(errs, fmt.Errorf("%d tasks don't add up: %s", r.Failures, strings.Join(r.Details, "\n")))
	}
	if len(r.Leftovers) > 0 {
		errs = append(errs, fmt.Errorf("processes left 5 s after a kill: %s", strings.Join(r.Leftovers, ", ")))
	}
	return errors.Join(errs...)
}

// String is the account in a few lines.
func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d blows, each with at least %d unsettled tasks; %d tasks, %d runs (%d repeats), %d dead-lettered\n", r.Blows, r.Least, r.Tasks, r.Runs, r.Repeats, r.DeadLettered)
	fmt.Fprintf(&b, "lost %d, finished twice %d, attempts settled twice %d, begun after their outcome %d, overlaps of a key %d, other ends than expected %d\n",
		r.Lost, r.Twice, r.SettledTwice, r.AfterOutcome, r.Overlaps, r.Unexpected+r.Unknown+r.UnstartedOutcomes)
	fmt.Fprintf(&b, "resumed after a restart: p50 %s, max %s; processes left: %d", quantile(r.Resumed, 0.5), quantile(r.Resumed, 1), len(r.Leftovers))
	if r.TakenOver > 0 {
		fmt.Fprintf(&b, "; taken over after %s", r.TakenOver.Round(time.Millisecond))
	}
	return b.String()
}

func quantile(ds []time.Duration, q float64) time.Duration {
	if len(ds) == 0 {
		return 0
	}
	ds = slices.Sorted(slices.Values(ds))
	return ds[min(len(ds)-1, int(q*float64(len(ds))))].Round(time.Millisecond)
}
