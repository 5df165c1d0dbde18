package instance

import (
	"errors"
	"log/slog"
	"time"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/stdio"
)

// phase is where a process stands on its way out.
type phase int

const (
	booting    phase = iota // no pong yet
	serving                 // takes attempts
	draining                // finishes what is in flight
	asked                   // has got the shutdown message
	terminated              // has got SIGTERM
	killed                  // has got SIGKILL
)

// Bounds of how long a process may take to answer its first ping; between them it is request_timeout.
const (
	minBoot = 60 * time.Second
	maxBoot = 10 * time.Minute
)

// forever is longer than any process lives, and can be added to a time.
const forever = 1000 * 24 * time.Hour

// life is one process's life, as its loop sees it.
type life struct {
	i       *Instance
	s       *session
	p       spec.Process
	phase   phase
	until   time.Time // end of the phase, where it has one
	started time.Time
	running time.Time // since when; zero: it never was
	beat    heartbeat
	next    time.Time // ping
	figures figures
	fault   *spec.Cause // why the loop killed it
	pid     int
}

// live starts a process and sees it to its end.
func (i *Instance) live() (end End, ran time.Duration, cause spec.Cause) {
	if o, _, ok := i.ordered(); ok {
		i.enter(Stopped, o.Reason, 0, nil)
		return EndAsked, 0, cause
	}
	i.enter(Starting, "", 0, nil)
	l, err := i.boot()
	if err != nil {
		end, cause = EndCrashed, Cause("AgentStartupError", err.Error())
		var fault *StartError
		if errors.As(err, &fault) {
			end, cause = EndHopeless, Cause(fault.Cause.Type, fault.Cause.Message)
		}
		i.enter(Crashed, cause.Message, 0, &cause)
		return end, 0, cause
	}
	l.loop()
	return l.conclude()
}

func (i *Instance) boot() (*life, error) {
	cmd, err := i.cfg.Prepare()
	if err != nil {
		return nil, err
	}
	p, err := i.cfg.Starter.Start(cmd)
	if err != nil {
		return nil, err
	}
	s := newSession(i, p)
	i.mu.Lock()
	i.session = s
	i.mu.Unlock()
	now := time.Now()
	l := &life{i: i, s: s, p: i.cfg.Agent.Process, started: now, pid: p.PID()}
	l.until = now.Add(min(max(l.p.RequestTimeout.Duration(), minBoot), maxBoot))
	l.sendPing(now)
	return l, nil
}

// loop does what is due and sleeps until the next thing is, or something happens.
func (l *life) loop() {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-l.s.process.Exited():
			return
		case <-l.i.wake:
		case <-t.C:
		}
		if next := l.step(time.Now()); next.IsZero() {
			t.Stop()
		} else {
			t.Reset(time.Until(next))
		}
	}
}

// step does what is due now and says when the next thing is.
func (l *life) step(now time.Time) time.Time {
	l.heardPong(now)
	l.pings(now)
	next := l.deadlines(now)
	l.orders(now)
	l.phases(now)
	if l.phase != serving {
		next = earliest(next, l.until)
	}
	if l.phase == serving || l.phase == draining {
		next = earliest(next, l.next)
	}
	return next
}

// earliest ignores zero times.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// heardPong takes note of a pong. The first one makes the instance run; how long it took says how long the program took
// to start, so another ping goes out at once for the figures.
func (l *life) heardPong(now time.Time) {
	p := l.s.takePong()
	if p == nil {
		return
	}
	latency := p.when.Sub(l.beat.sent)
	l.beat.id, l.beat.misses = 0, 0
	if l.phase == booting {
		l.phase, l.running, l.until, l.next = serving, now, time.Time{}, now
		l.i.enter(Running, "", l.pid, nil)
		return
	}
	l.next = now.Add(l.interval())
	l.check(now, p.result, latency)
}

// pings sends what is due, and judges what wasn't answered. While the process boots, its one ping waits.
func (l *life) pings(now time.Time) {
	if l.phase != serving && l.phase != draining || now.Before(l.next) {
		return
	}
	if l.beat.id == 0 {
		l.sendPing(now)
		return
	}
	l.beat.overdue(l.s.lastHeard())
	l.next = now.Add(max(l.interval()-l.i.cfg.pongTimeout(), 0))
	l.check(now, nil, 0)
	if l.phase == serving && l.beat.health(l.s.inFlight()) == Unresponsive {
		c := Cause("AgentTimeoutError", "the process answers no pings")
		l.fault = &c
		l.kill()
	}
}

// interval is the heartbeat's, where it is infinite a time that can be reckoned with.
func (l *life) interval() time.Duration { return min(l.p.HeartbeatIntervalSeconds.Duration(), forever) }

// sendPing leaves the next look to when its pong is overdue.
func (l *life) sendPing(now time.Time) {
	l.beat.id, l.beat.sent = l.s.sendPing(), now
	l.next = now.Add(l.i.cfg.pongTimeout())
	if l.beat.id == 0 {
		l.beat.id = ^uint64(0) // it couldn't be queued: it counts as one that isn't answered
	}
}

// check reports the instance's health and figures.
func (l *life) check(now time.Time, pong []byte, latency time.Duration) {
	c := Check{State: l.i.State(), Health: l.beat.health(l.s.inFlight()), Latency: latency, When: now}
	c.MemoryMB, c.CPUPercent = l.figures.take(l.pid, pong, now)
	l.i.mu.Lock()
	c.Restarts = l.i.restarts
	l.i.mu.Unlock()
	l.i.cfg.Host.Checked(l.i, c)
}

// deadlines has attempts ended whose time is over, and ends the instance where that takes its process.
func (l *life) deadlines(now time.Time) time.Time {
	stuck, next := l.s.expire(now, l.p.GracefulTimeoutSec.Duration())
	if stuck != "" {
		l.i.retire(Order{Reason: stuck, Drain: l.p.DrainTimeout.Duration(), Kill: true})
	}
	return next
}

// orders begins to carry out an order, and hastens one that goes on.
func (l *life) orders(now time.Time) {
	o, until, ok := l.i.ordered()
	if !ok || l.phase > draining {
		return
	}
	if l.phase != draining {
		l.i.enter(Stopping, o.Reason, l.pid, nil)
		l.s.close()
		l.phase = draining
	}
	l.until = until
	if l.s.inFlight() == 0 {
		l.until = now
	}
}

// phases goes on to the next phase when one is over.
func (l *life) phases(now time.Time) {
	if l.until.IsZero() || now.Before(l.until) {
		return
	}
	switch l.phase {
	case booting:
		c := Cause("AgentStartupError", "the process hasn't answered its first ping within "+now.Sub(l.started).Round(time.Second).String())
		l.fault = &c
		l.kill()
	case draining:
		if o, _, _ := l.i.ordered(); o.Kill && l.s.inFlight() > 0 {
			l.kill()
			return
		}
		l.phase, l.until = asked, now.Add(l.p.GracefulTimeoutSec.Duration())
		_ = l.s.writer.Send(stdio.Text(stdio.Shutdown)) // where it can't be queued, the next phases do it
		l.s.writer.Close()
	case asked:
		l.phase, l.until = terminated, now.Add(l.p.SigtermTimeoutSec.Duration())
		l.s.process.Terminate()
	case terminated:
		l.kill()
	}
}

func (l *life) kill() {
	l.phase, l.until = killed, time.Time{}
	l.s.process.Kill()
}

// conclude ends what was in flight and says how the life ended.
func (l *life) conclude() (End, time.Duration, spec.Cause) {
	i := l.i
	status := l.s.process.Status()
	l.s.release() // all answers that were written are read now
	l.heardPong(time.Now())
	o, _, ordered := i.ordered()
	ours := ordered && l.phase > draining || l.fault != nil
	what := status.String()
	if l.fault != nil {
		what = "was ended: " + l.fault.Message
	}
	i.mu.Lock()
	i.session = nil
	i.mu.Unlock()
	sent := l.s.bury(ending{ours: ours, what: what, output: lastLines(i.Log)})
	var ran time.Duration
	if !l.running.IsZero() {
		ran = time.Since(l.running)
	}
	switch {
	case ordered:
		if i.State() != Stopping { // the order came while it was ending
			i.enter(Stopping, o.Reason, l.pid, nil)
		}
		i.enter(Stopped, o.Reason, l.pid, nil)
		return EndAsked, ran, spec.Cause{}
	case status.Clean() && !l.running.IsZero() && l.fault == nil:
		i.enter(Stopping, "completed", l.pid, nil)
		i.enter(Stopped, "completed", l.pid, nil)
		return EndDone, ran, spec.Cause{}
	}
	end, cause := l.crash(what, sent)
	i.log.Warn("agent process ended", slog.Int("pid", l.pid), slog.String("how", what), slog.Int("in_flight", sent), slog.String("error_type", cause.Type))
	i.enter(Crashed, cause.Message, l.pid, &cause)
	return end, ran, cause
}

// crash classes an end that nobody wanted.
func (l *life) crash(what string, sent int) (End, spec.Cause) {
	switch cause := l.s.startupCause(); {
	case cause != nil && l.running.IsZero():
		if cause.Type == "AgentStartupError" { // importing it failed, which may have passed by the next time
			return EndCrashed, Cause(cause.Type, cause.Message)
		}
		return EndHopeless, Cause(cause.Type, cause.Message)
	case l.fault != nil:
		return EndCrashed, *l.fault
	case l.running.IsZero():
		return EndCrashed, Cause("AgentStartupError", "the process "+what+" before it answered a ping"+l.lastWords())
	case sent == 1:
		return EndCulprit, Cause("AgentCrashError", "the process "+what+" while it ran one task"+l.lastWords())
	}
	return EndCrashed, Cause("AgentCrashError", "the process "+what+l.lastWords())
}

func (l *life) lastWords() string {
	if tail := l.i.Log.Tail(1); len(tail) == 1 && tail[0] != "" {
		return "; its last output: " + tail[0]
	}
	return ""
}
