package worker

import (
	"bytes"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/task"
)

// account is what a task's attempts have cost it, up to and with the one that is settled.
type account struct {
	burnt, timeouts int
	burntAt         []int64 // when the last of those ended that burnt a retry, ascending, in Unix milliseconds
	outages         int     // in so many it was spared
	last            int64   // since when the last of them was
}

// maxBurntAt is how many times of burnt retries a task carries.
const maxBurntAt = 32

// accountHeaders are those that an account is written in, and the number of the attempt.
var accountHeaders = []string{task.HeaderAttempt, task.HeaderBurnt, task.HeaderBurntAt, task.HeaderSpared, task.HeaderTimeouts}

// account reads what the headers say.
func (h *header) account() account {
	p := h.before()
	if p.kept != nil {
		a := *p.kept
		a.burntAt = slices.Clone(a.burntAt)
		return a
	}
	a := account{burnt: p.burnt, timeouts: p.timeouts}
	if p.burntAt != nil {
		for field := range bytes.FieldsSeq(p.burntAt) {
			if at, err := strconv.ParseInt(string(field), 10, 64); err == nil {
				a.burntAt = append(a.burntAt, at)
			}
		}
	}
	if outages, last, ok := bytes.Cut(p.spared, []byte(" ")); ok {
		a.outages = number(outages)
		a.last, _ = strconv.ParseInt(string(last), 10, 64) // 0 where it isn't readable
	}
	return a
}

// keepSince makes the account of a task that keeps its key and was another owner's, who tells only when its first attempt
// failed: that is taken for the time of all that burnt.
func (h *header) keepSince(first int64) {
	a := h.account()
	if first > 0 {
		a.burntAt = slices.Repeat([]int64{first}, min(a.burnt, maxBurntAt))
	}
	h.remember().kept = &a
}

// headers writes the account. number writes small numbers.
func (a *account) headers(hs []kgo.RecordHeader, number func(int) []byte) []kgo.RecordHeader {
	hs = append(hs, kgo.RecordHeader{Key: task.HeaderBurnt, Value: number(a.burnt)})
	if a.timeouts > 0 {
		hs = append(hs, kgo.RecordHeader{Key: task.HeaderTimeouts, Value: number(a.timeouts)})
	}
	if len(a.burntAt) > 0 {
		var b []byte
		for i, at := range a.burntAt {
			if i > 0 {
				b = append(b, ' ')
			}
			b = strconv.AppendInt(b, at, 10)
		}
		hs = append(hs, kgo.RecordHeader{Key: task.HeaderBurntAt, Value: b})
	}
	if a.outages > 0 {
		b := strconv.AppendInt(append(strconv.AppendInt(nil, int64(a.outages), 10), ' '), a.last, 10)
		hs = append(hs, kgo.RecordHeader{Key: task.HeaderSpared, Value: b})
	}
	return hs
}

// spare notes that the task was spared in an outage. It refuses where that was so too often.
func (a *account) spare(since int64) bool {
	switch {
	case a.outages > 0 && a.last == since:
		return true
	case a.outages >= maxSpared:
		return false
	}
	a.outages, a.last = a.outages+1, since
	return true
}

// giveBack takes the retries off the account that were burnt in outages.
func (a *account) giveBack(o *outage) {
	kept := a.burntAt[:0]
	for _, at := range a.burntAt {
		if since, ok := o.spares(at, at); ok && a.spare(since) {
			a.burnt = max(a.burnt-1, 0)
		} else {
			kept = append(kept, at)
		}
	}
	a.burntAt = kept
}

// first is when the failures began that count against the task, the one included that came at a time.
func (a *account) first(at time.Time) time.Time {
	if len(a.burntAt) > 0 {
		return time.UnixMilli(a.burntAt[0])
	}
	return at
}

// settle adds the attempt that the account is settled with, which ended at a time.
func (a *account) settle(v Verdict, spared bool, ended int64) {
	if v.Class == task.ClassTimeout && !spared {
		a.timeouts++
	}
	if v.Burns {
		a.burnt++
		a.burntAt = append(a.burntAt, ended)
		a.burntAt = a.burntAt[max(len(a.burntAt)-maxBurntAt, 0):]
	}
}

// judge decides a finished task, and brings its account up to date.
func (e *Engine) judge(s *slot) Verdict {
	if s.result.Outcome == task.Completed {
		return Judge(e.policy, Tries{}, s.result)
	}
	a := s.header.account()
	a.giveBack(&e.outage)
	f := failureOf(s.result)
	from, to := millis(s.attempt.started), millis(s.ended)
	since, spared := e.outage.spares(from, to)
	spared = spared && f.kind != 0 && from > 0 && a.spare(since)
	tries := Tries{Number: s.attempt.Number, Burnt: a.burnt, Timeouts: a.timeouts, Outage: spared}
	v := Judge(e.policy, tries, s.result)
	s.account = &a
	if !spared && v.final() && f.kind != 0 && e.outage.reprieve.covers(s.final()) && e.outage.reprieve.spare(&a) {
		spared, tries.Outage = true, true
		v = Judge(e.policy, tries, s.result)
	}
	a.settle(v, spared, to)
	return v
}
