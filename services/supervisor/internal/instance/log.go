package instance

import (
	"strings"
	"sync"
	"time"
)

const (
	logLines  = 1000
	logBytes  = 256 << 10
	lineBytes = 4 << 10 // of a line that is kept

	publishedRate  = 10 // lines a second that leave the process …
	publishedBurst = 100
)

// Log keeps the last lines that an agent wrote, and says which of them may be published. It is safe for concurrent use.
type Log struct {
	mu     sync.Mutex
	lines  []string // a ring once it is full
	first  int
	bytes  int
	tokens float64
	filled time.Time
	held   int // lines not published since the last that was
}

// add keeps a line. publish says whether it may leave the process; heldBack counts those that might not, just before it.
func (l *Log) add(line string, now time.Time) (publish bool, heldBack int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
	l.bytes += len(line)
	for l.bytes > logBytes || len(l.lines)-l.first > logLines {
		l.bytes -= len(l.lines[l.first])
		l.lines[l.first] = ""
		l.first++
	}
	if l.first > logLines {
		l.lines = append([]string(nil), l.lines[l.first:]...)
		l.first = 0
	}
	return l.allow(now)
}

func (l *Log) allow(now time.Time) (bool, int) {
	if l.filled.IsZero() {
		l.tokens = publishedBurst
	} else {
		l.tokens = min(publishedBurst, l.tokens+now.Sub(l.filled).Seconds()*publishedRate)
	}
	l.filled = now
	if l.tokens < 1 {
		l.held++
		return false, 0
	}
	l.tokens--
	held := l.held
	l.held = 0
	return true, held
}

// Tail gives the last n lines.
func (l *Log) Tail(n int) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.lines[max(l.first, len(l.lines)-n):]...)
}

// cut bounds a line and makes it UTF-8.
func cut(line []byte, tooLong bool) string {
	if len(line) > lineBytes {
		line, tooLong = line[:lineBytes], true
	}
	s := strings.ToValidUTF8(strings.TrimRight(string(line), "\r"), "\uFFFD")
	if tooLong {
		s += " …"
	}
	return s
}
