package instance

import (
	"time"

	"github.com/reeve-run/reeve/pkg/spec"
	"github.com/reeve-run/reeve/pkg/stdio"
)

// readAnswers reads the process's standard output to its end.
func (s *session) readAnswers() {
	limit := s.instance.cfg.lineLimit()
	r := stdio.NewReader(s.process.Stdout, limit)
	for {
		line, tooLong, err := r.Next()
		if err != nil {
			return
		}
		s.heard.Store(time.Now().UnixNano())
		if tooLong {
			s.tooLong(line, limit)
		} else if len(line) > 0 {
			s.line(line)
		}
	}
}

func (s *session) tooLong(head []byte, limit int) {
	id, ok := stdio.ParseTruncated(head)
	if ok && s.answer(id, stdio.Answer{}, true, limit) {
		return
	}
	s.instance.output(head, true)
}

func (s *session) line(line []byte) {
	a, prefix, err := stdio.ParseAnswer(line)
	if err != nil {
		s.broken(line)
		return
	}
	if len(prefix) > 0 {
		s.instance.output(prefix, false)
	}
	switch {
	case a.Kind == stdio.StartupError:
		s.mu.Lock()
		s.cause = &spec.Cause{Type: a.Type, Message: a.Message}
		s.mu.Unlock()
	case a.HasID && s.isPong(a):
		s.instance.signal()
	case a.Kind == stdio.KindProgress, a.Kind == stdio.KindPublish:
		s.message(a)
	case a.HasID:
		s.answer(a.ID, a, false, 0)
	}
}

// broken handles a line that is no answer: the agent's output, or an answer that isn't JSON.
func (s *session) broken(line []byte) {
	if id, ok := stdio.ParseBroken(line); ok {
		s.answer(id, stdio.Answer{Message: "the agent's answer is no JSON: it is in its log"}, false, 0)
	}
	s.instance.output(line, false)
}

// isPong takes the answer to the ping that waits. An agent that answers it with an error doesn't know pings, and lives.
func (s *session) isPong(a stdio.Answer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ping == 0 || a.ID != s.ping {
		return false
	}
	s.ping = 0
	if !s.announced {
		s.announced, s.abilities = true, stdio.ParseAbilities(a.Result)
	}
	s.pong = &pongSeen{when: time.Now(), result: append([]byte(nil), a.Result...)}
	return true
}

// readLog reads the process's standard error to its end.
func (s *session) readLog() {
	r := stdio.NewReader(s.process.Stderr, 64<<10)
	for {
		line, tooLong, err := r.Next()
		if err != nil {
			return
		}
		s.instance.output(line, tooLong)
	}
}
