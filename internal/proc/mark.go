package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// MarkVariable is the environment variable that holds a process's mark.
const MarkVariable = "REEVE_INSTANCE"

// A Mark says whose process it is. None of the first three may hold a slash.
type Mark struct {
	Host, Node string
	Life       string // of the process that started it, see Life
	Instance   string // empty for a helper that belongs to no instance
}

// String writes the mark as it stands in the environment.
func (m Mark) String() string { return m.Host + "/" + m.Node + "/" + m.Life + "/" + m.Instance }

// Env is the mark as an entry of an environment.
func (m Mark) Env() string { return MarkVariable + "=" + m.String() }

// ParseMark reads a mark; ok is false where it is none.
func ParseMark(s string) (m Mark, ok bool) {
	p := strings.SplitN(s, "/", 4)
	if len(p) != 4 || p[0] == "" || p[1] == "" || p[2] == "" {
		return Mark{}, false
	}
	return Mark{p[0], p[1], p[2], p[3]}, true
}

// Left tells which marked processes an earlier life of a node left behind: those of this host and node whose starter
// is gone. A starter that still lives looks after its own.
func Left(host, node string, alive func(life string) bool) func(Mark) bool {
	return func(m Mark) bool { return m.Host == host && m.Node == node && !alive(m.Life) }
}

// Of tells the processes of one mark; an empty Instance stands for all instances of that life.
func Of(mark Mark) func(Mark) bool {
	return func(m Mark) bool {
		return m == mark || mark.Instance == "" && m.Host == mark.Host && m.Node == mark.Node && m.Life == mark.Life
	}
}

// KillMarked sends SIGKILL to every process whose mark matches, but never to the caller, and says how many there were.
// It goes on until a look round finds none that still runs, since a process may fork while it is looked for; an error
// says that something survived, which only a process that the caller may not signal does.
func KillMarked(match func(Mark) bool) (int, error) {
	killed, rounds := map[int]bool{}, 0
	for {
		found, err := killOnce(match)
		for _, pid := range found {
			killed[pid] = true
		}
		if err != nil || len(found) == 0 {
			return len(killed), err
		}
		if rounds++; rounds == 100 {
			return len(killed), fmt.Errorf("kill marked processes: %d are still there after %d rounds", len(found), rounds)
		}
	}
}

// Young lists the processes whose mark matches, that started when something began or later, and that still run. It sees
// moments of 10 ms, and rather lists one that started just before. One that Young may not look at isn't listed.
func Young(match func(Mark) bool, began time.Time) ([]int, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return nil, fmt.Errorf("read the time since boot: %w", err)
	}
	since := max(time.Duration(ts.Nano())-time.Since(began), 0) / (time.Second / ticksPerSecond)
	all, err := pids()
	if err != nil {
		return nil, err
	}
	var young []int
	for _, pid := range all {
		s, err := Read(pid)
		if err == nil && s.State != 'Z' && s.Start >= uint64(since) && marked(pid, match) {
			young = append(young, pid)
		}
	}
	return young, nil
}

func killOnce(match func(Mark) bool) ([]int, error) {
	all, err := pids()
	if err != nil {
		return nil, err
	}
	var found []int
	var errs []error
	for _, pid := range all {
		if pid == os.Getpid() || !marked(pid, match) {
			continue
		}
		hit, err := kill(pid, match)
		if err != nil {
			errs = append(errs, err)
		}
		if hit {
			found = append(found, pid)
		}
	}
	return found, errors.Join(errs...)
}

// kill pins the process, looks again whether it is the one meant, and ends it. It waits until the kernel has taken the
// process down, so that the next look doesn't meet it again.
func kill(pid int, match func(Mark) bool) (bool, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("pin process %d: %w", pid, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if !marked(pid, match) {
		return false, nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		if errors.Is(err, unix.ESRCH) {
			return false, nil
		}
		return false, fmt.Errorf("kill process %d: %w", pid, err)
	}
	// A pidfd becomes readable when its process has ended. The bound is for one that hangs in the kernel.
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 200)
	return true, nil
}

// marked reads a process's mark. A process that ended has none: its environment is gone.
func marked(pid int, match func(Mark) bool) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return false
	}
	for len(b) > 0 {
		var entry []byte
		entry, b, _ = bytes.Cut(b, []byte{0})
		if v, ok := bytes.CutPrefix(entry, []byte(MarkVariable+"=")); ok {
			m, ok := ParseMark(string(v))
			return ok && match(m)
		}
	}
	return false
}
