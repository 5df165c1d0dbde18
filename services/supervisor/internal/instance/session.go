package instance

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/reeve-run/reeve/pkg/event"
	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/stdio"
	"github.com/reeve-run/reeve/pkg/worker"
	"github.com/reeve-run/reeve/services/supervisor/internal/process"
)

// drainPipes is how long what a dead process has written may take to be read: only a process that got away and holds
// the pipe makes it last.
const drainPipes = 2 * time.Second

// reserve is room in the input queue beside the tasks: pings and the shutdown message.
const reserve = 16

// session is one process of an instance, with what is in flight in it.
type session struct {
	instance *Instance
	process  *process.Process
	writer   *stdio.Writer
	params   event.Params
	readers  sync.WaitGroup
	heard    atomic.Int64 // when the last line came, Unix nanoseconds

	mu     sync.Mutex
	calls  map[uint64]*call
	lastID uint64
	closed bool      // takes no more attempts
	due    time.Time // the earliest deadline that the loop knows; zero: none
	ping   uint64    // waits for its pong
	pong   *pongSeen // came, and the loop hasn't looked yet
	cause  *spec.Cause
	// abilities are what the program has announced in its first pong.
	abilities stdio.Abilities
	announced bool
}

type pongSeen struct {
	when   time.Time
	result []byte
}

func newSession(i *Instance, p *process.Process) *session {
	s := &session{instance: i, process: p, params: i.params(), calls: map[uint64]*call{},
		writer: stdio.NewWriter(p.Stdin, i.cfg.Agent.Config.Concurrency+reserve)}
	s.readers.Go(s.readAnswers)
	s.readers.Go(s.readLog)
	return s
}

// run takes attempts, all or none.
func (s *session) run(as []*worker.Attempt) bool {
	now := time.Now()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return false
	}
	ms := make([]stdio.Message, len(as))
	sooner := false
	for n, a := range as {
		s.lastID++
		c := &call{session: s, attempt: a, id: s.lastID, began: now}
		if a.Timeout > 0 && a.Timeout < forever {
			c.deadline = now.Add(a.Timeout)
			if s.due.IsZero() || c.deadline.Before(s.due) {
				s.due, sooner = c.deadline, true
			}
		}
		s.calls[c.id] = c
		ms[n] = c
	}
	s.mu.Unlock()
	if sooner {
		s.instance.signal()
	}
	if s.writer.Send(ms...) != nil {
		s.close() // its input is closed, so its end is near, or pings will show that it is deaf
	}
	return true
}

// take takes a call out of what is in flight.
func (s *session) take(id uint64) *call {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.calls[id]
	delete(s.calls, id)
	return c
}

// answer ends the call whose answer has come, and reports whether there was one. A call that timed out and has left a
// process that goes on isn't over: its retry must not start beside that.
func (s *session) answer(id uint64, a stdio.Answer, tooLong bool, limit int) bool {
	s.mu.Lock()
	c := s.calls[id]
	late := c != nil && c.timedOut
	if !late {
		delete(s.calls, id)
	}
	s.mu.Unlock()
	if late && s.process.Left(c.began) {
		s.mu.Lock()
		c.forced = true
		s.mu.Unlock()
		s.instance.retire(Order{Reason: leftWork, Drain: s.instance.cfg.Agent.Process.DrainTimeout.Duration(), Kill: true})
		return true
	}
	if late {
		s.take(id)
	}
	if c != nil {
		s.end(c, c.answered(a, tooLong, limit))
	}
	return c != nil
}

// end finishes a call that was taken. Its slot is free before.
func (s *session) end(c *call, r worker.Result) {
	s.instance.cfg.Host.Freed(s.instance, 1)
	c.attempt.Finish(r)
	if s.idle() {
		s.instance.signal()
	}
}

// idle reports whether a session that takes no more has nothing in flight either.
func (s *session) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed && len(s.calls) == 0
}

func (s *session) inFlight() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.calls)
}

// close takes no more attempts, and gives back those that weren't sent.
func (s *session) close() {
	s.mu.Lock()
	s.closed = true
	back := s.withdraw(func(*call) bool { return true })
	s.mu.Unlock()
	s.giveBack(back)
}

// withdraw takes out calls that weren't sent. The lock is held.
func (s *session) withdraw(which func(*call) bool) []*call {
	var out []*call
	for id, c := range s.calls {
		if !c.sent && which(c) {
			c.withdrawn = true
			delete(s.calls, id)
			out = append(out, c)
		}
	}
	slices.SortFunc(out, func(a, b *call) int { return cmp.Compare(a.id, b.id) })
	return out
}

func (s *session) giveBack(cs []*call) {
	if len(cs) == 0 {
		return
	}
	as := make([]*worker.Attempt, len(cs))
	for n, c := range cs {
		as[n] = c.attempt
	}
	s.instance.cfg.Host.Returned(s.instance, as)
}

// Why a process can't be used any more.
const (
	tookTooLong  = "a task took longer than its timeout"
	leftWork     = "a task took longer than its timeout, and a process that it may have started goes on"
	wontBeEnded  = "a task was cancelled and didn't end by itself"
	wasCancelled = "a task was cancelled"
)

// expire looks for calls whose time is over and gives the next deadline, zero if there is none. They are asked to end
// where the program knows how, and have the grace for it; one that goes on then shows that the process is stuck, and so
// does any where it can't be asked. A call that wasn't even sent has not begun and goes back; it shows as much as one that
// doesn't end. stuck says why the process is stuck, "" that it isn't.
func (s *session) expire(now time.Time, grace time.Duration) (stuck string, next time.Time) {
	s.mu.Lock()
	if s.due.IsZero() || now.Before(s.due) {
		next = s.due
		s.mu.Unlock()
		return "", next
	}
	back := s.withdraw(func(c *call) bool { return c.over(now) })
	if len(back) > 0 {
		stuck = tookTooLong
	}
	var asks []stdio.Message
	for _, c := range s.calls {
		if c.over(now) {
			ask, why := c.expire(now, s.abilities.Cancel, grace)
			if ask {
				asks = append(asks, stdio.Text(stdio.AppendCancel(nil, c.id)))
			}
			stuck = cmp.Or(why, stuck)
		}
		if !c.deadline.IsZero() && !c.over(now) {
			next = earliest(next, c.deadline)
		}
	}
	s.due = next
	s.mu.Unlock()
	if len(asks) > 0 {
		_ = s.writer.Send(asks...) // where they can't be queued, force does it
	}
	s.giveBack(back)
	return stuck, next
}

// cancel ends an attempt, if it is here. begun says that it takes its process with it.
func (s *session) cancel(a *worker.Attempt) (found, begun bool) {
	s.mu.Lock()
	c := s.find(a)
	switch {
	case c == nil:
	case c.sent:
		c.cancelled = true
	default:
		c.withdrawn = true
		delete(s.calls, c.id)
	}
	s.mu.Unlock()
	if c == nil {
		return false, false
	}
	if !c.sent {
		s.end(c, worker.Result{CutShort: true})
	}
	return true, c.sent
}

// interrupt asks an attempt to end, if it is here, and gives it so long for it.
func (s *session) interrupt(a *worker.Attempt, grace time.Duration) (found bool) {
	s.mu.Lock()
	c := s.find(a)
	if c == nil || c.interrupted {
		s.mu.Unlock()
		return c != nil
	}
	if !c.sent {
		c.withdrawn = true
		delete(s.calls, c.id)
		s.mu.Unlock()
		s.end(c, worker.Result{CutShort: true})
		return true
	}
	asks := s.abilities.Cancel && !c.timedOut // one that took too long has been asked
	c.interrupted = true
	if !s.abilities.Cancel {
		grace = 0
	}
	now := time.Now()
	if until := now.Add(min(grace, forever)); c.deadline.IsZero() || until.Before(c.deadline) {
		c.deadline = until
	}
	if s.due.IsZero() || c.deadline.Before(s.due) {
		s.due = c.deadline
	}
	s.mu.Unlock()
	if asks {
		_ = s.writer.Send(stdio.Text(stdio.AppendCancel(nil, c.id))) // where it can't be queued, force does it
	}
	s.instance.signal()
	return true
}

// find gives an attempt's call, or nil. The lock is held.
func (s *session) find(a *worker.Attempt) *call {
	for _, c := range s.calls {
		if c.attempt == a {
			return c
		}
	}
	return nil
}

// bury ends what is in flight when the process is dead.
func (s *session) bury(e ending) (sent int) {
	s.close()
	s.mu.Lock()
	left := make([]*call, 0, len(s.calls))
	for id, c := range s.calls {
		left = append(left, c)
		delete(s.calls, id)
	}
	s.mu.Unlock()
	slices.SortFunc(left, func(a, b *call) int { return cmp.Compare(a.id, b.id) })
	e.shared = len(left) > 1
	for _, c := range left {
		s.end(c, c.buried(e))
	}
	return len(left)
}

// sendPing queues a ping and gives its id; 0 says that it can't be queued.
func (s *session) sendPing() uint64 {
	s.mu.Lock()
	s.lastID++
	id := s.lastID
	s.ping, s.pong = id, nil
	s.mu.Unlock()
	if s.writer.Send(stdio.Text(stdio.AppendPing(nil, id))) != nil {
		return 0
	}
	return id
}

// takePong gives the pong that came, once.
func (s *session) takePong() *pongSeen {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pong
	s.pong = nil
	return p
}

// release closes the pipes of a dead process when all that it wrote was read, and waits for the readers.
func (s *session) release() {
	s.writer.Abort()
	deadline := time.Now().Add(drainPipes)
	_ = s.process.Stdout.SetReadDeadline(deadline)
	_ = s.process.Stderr.SetReadDeadline(deadline)
	s.readers.Wait()
	_ = s.process.Stdout.Close()
	_ = s.process.Stderr.Close()
}

func (s *session) startupCause() *spec.Cause {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cause
}

func (s *session) lastHeard() time.Time { return time.Unix(0, s.heard.Load()) }
