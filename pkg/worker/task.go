package worker

import (
	"hash/maphash"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/reeve-run/reeve/pkg/task"
)

// header is what a task record's headers say that the engine acts on. The values are the record's own bytes.
type header struct {
	origin, event, correlation, replyTo, webhook []byte
	attempt                                      int
	past                                         *past // nil for nearly all: nothing has become of the task before
}

// past is what has become of a task before.
type past struct {
	redrives, firstFailed    []byte
	order                    []byte // task.HeaderOrder
	burntAt, spared          []byte // as task.HeaderBurntAt and task.HeaderSpared
	errorClass, errorMessage []byte // of a record that was routed only to be dead-lettered, or of the last attempt
	burnt, timeouts          int
	kept                     *account // of a task that keeps its key: what counts instead
}

// before is the task's past, to be read only.
func (h *header) before() *past {
	if h.past != nil {
		return h.past
	}
	return &past{}
}

// remember is the task's past, to be added to.
func (h *header) remember() *past {
	if h.past == nil {
		h.past = &past{}
	}
	return h.past
}

// redrives is task.HeaderRedrives as it stands in the record; nil where it doesn't.
func (h *header) redrives() []byte {
	if h.past == nil {
		return nil
	}
	return h.past.redrives
}

// order is task.HeaderOrder, nil where the record has none.
func (h *header) order() []byte {
	if h.past == nil {
		return nil
	}
	return h.past.order
}

// round is how often the task was redriven.
func (h *header) round() int { return number(h.redrives()) }

// read takes the headers in one pass. A record that Reeve didn't write still runs: its attempt is 1.
func (h *header) read(r *kgo.Record) {
	h.attempt = 1
	for i := range r.Headers {
		key, value := r.Headers[i].Key, r.Headers[i].Value
		if !strings.HasPrefix(key, "reeve-") {
			continue
		}
		switch key {
		case task.HeaderOrigin:
			h.origin = value
		case task.HeaderEvent:
			h.event = value
		case task.HeaderAttempt:
			h.attempt = max(number(value), 1)
		case task.HeaderBurnt:
			h.remember().burnt = number(value)
		case task.HeaderBurntAt:
			h.remember().burntAt = value
		case task.HeaderSpared:
			h.remember().spared = value
		case task.HeaderTimeouts:
			h.remember().timeouts = number(value)
		case task.HeaderCorrelationID:
			h.correlation = value
		case task.HeaderReplyTo:
			h.replyTo = value
		case task.HeaderWebhook:
			h.webhook = value
		case task.HeaderRedrives:
			h.remember().redrives = value
		case task.HeaderOrder:
			h.remember().order = value
		case task.HeaderFirstFailedAt:
			h.remember().firstFailed = value
		case task.HeaderErrorClass:
			h.remember().errorClass = value
		case task.HeaderErrorMessage:
			h.remember().errorMessage = value
		}
	}
}

// rejected reports whether the dispatcher found the event unfit to run: then nothing has failed before.
func (h *header) rejected() bool {
	return h.past != nil && h.past.errorClass != nil && h.past.firstFailed == nil
}

// first reports whether no attempt of the task was settled before: a retry says another attempt, a dead letter that came
// back its redrives.
func (s *slot) first() bool {
	return s.header.attempt == 1 && s.header.round() == 0 && s.hold == nil
}

func number(b []byte) int {
	if len(b) == 1 && b[0] >= '0' && b[0] <= '9' {
		return int(b[0] - '0')
	}
	n, err := strconv.Atoi(string(b))
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// state of a slot.
type state uint8

const (
	waiting   state = iota // for its key, or for its entry in the metadata
	ready                  // may start
	running                // with the Runner
	finished               // its result waits for a transaction
	booked                 // its retry is in the transaction under way, and it will keep its key
	held                   // keeps its key until its next attempt is due
	abandoned              // its partition is gone
)

// slot is a task's place in the engine, from admission to settlement. The engine's lock guards it.
type slot struct {
	eng     *Engine
	part    *partition
	attempt Attempt
	header  header
	result  Result
	verdict Verdict
	account *account // of the task's attempts up to the verdict; nil where the last one completed
	ended   time.Time
	signs   *signs // of life; nil until the attempt has given one
	next    *slot  // the next task of the same key
	hold    *hold  // of a task that has failed and keeps its key; nil before
	keeps   *hold  // what hold will be if its verdict, a retry in place, is committed
	key     uint64
	begun   int // last attempt that may have begun; 0: none
	// suspicion is that of the engine when this task fell under it; 0: never.
	suspicion int
	solo      bool // as a suspect it has to run alone
	state     state
	keyed     bool
	counted   bool          // in the engine's unsettled
	noReply   trouble       // why the reply topic can't be used
	bare      bool          // the webhook goes without content and result: its topic takes no larger record
	probe     bool          // it runs to see whether an outage goes on
	sought    bool          // it was picked out of its turn for that
	crashed   bool          // its last attempt crashed, with nothing beside it that could have been the reason
	cancel    *Cancellation // the task is to end
}

func (s *slot) offset() int64 { return s.attempt.Record.Offset }

// suspect reports whether the task may have killed the process that it ran in, and hasn't been cleared.
func (s *slot) suspect() bool { return s.suspicion != 0 && s.suspicion == s.eng.suspicion }

// number is that of the attempt to start next.
func (s *slot) number() int { return max(s.begun+1, s.header.attempt) }

// named reports whether the attempt has to be named in the metadata before it starts: its record says another, or it lies
// far beyond what is reserved.
func (s *slot) named() bool { return s.suspect() || s.sought || s.number() != s.header.attempt }

// untold reports whether the task's last attempt is one that neither its record nor a mark tells of.
func (s *slot) untold() bool { return s.begun > s.header.attempt || s.sought && s.begun > 0 }

// published is what the attempt publishes, as it is settled now.
func (s *slot) published() []*kgo.Record {
	if s.verdict.Settled != task.SettledDone {
		return nil
	}
	return s.result.Publish
}

// bytes is about how much the attempt's settlement writes.
func (s *slot) bytes() int {
	n := len(s.result.Value)
	if len(s.header.webhook) > 0 && s.verdict.Settled != task.SettledRetry {
		n += len(s.result.Value) + len(s.attempt.Record.Value)
	}
	switch s.verdict.Settled {
	case task.SettledRetry, task.SettledDLQ:
		n += len(s.attempt.Record.Value)
	case task.SettledDone:
		if len(s.header.replyTo) > 0 {
			n += len(s.result.Value)
		}
		for _, r := range s.result.Publish {
			n += len(r.Key) + len(r.Value)
			for _, h := range r.Headers {
				n += len(h.Key) + len(h.Value)
			}
		}
	}
	return n
}

func (s *slot) finish(_ *Attempt, r Result) { s.eng.finish(s, r) }

// seed differs from process to process; a queue is a matter of one process.
var seed = maphash.MakeSeed()

// hashKey maps a record's key to the queue that it waits in. Keys that collide wait for each other, which is harmless.
func hashKey(key []byte) uint64 { return maphash.Bytes(seed, key) }
