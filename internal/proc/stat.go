package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"
)

// ticksPerSecond is the unit of times in /proc: USER_HZ is 100 on every architecture that Go runs Linux on.
const ticksPerSecond = 100

// Stat is what /proc/<pid>/stat says of a process.
type Stat struct {
	PID, PPID, PGID int
	// State is R, S, D, T, Z and so on; Z is a process that ended and wasn't waited for.
	State byte
	// CPU is the time that all its threads have used, without its children.
	CPU time.Duration
	// Start is when it started, in ticks since boot: with the PID it names one process for good.
	Start uint64
	// RSS is the memory that it occupies, in bytes.
	RSS int64
}

var errStat = errors.New("unexpected format")

// Read reads the figures of one process.
func Read(pid int) (Stat, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return Stat{}, fmt.Errorf("read process %d: %w", pid, err)
	}
	s, err := parseStat(b)
	if err != nil {
		return Stat{}, fmt.Errorf("read process %d: %w", pid, err)
	}
	return s, nil
}

// parseStat reads a line of /proc/<pid>/stat (proc_pid_stat(5)). The second field is the program's name in
// parentheses and may hold anything, so fields are counted from the last closing one.
func parseStat(b []byte) (Stat, error) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 1 || end < open {
		return Stat{}, errStat
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(b[:open])))
	if err != nil {
		return Stat{}, errStat
	}
	f := bytes.Fields(b[end+1:])
	if len(f) < 22 || len(f[0]) != 1 {
		return Stat{}, errStat
	}
	var bad bool
	num := func(field int) uint64 { // numbered as in the manual page, where the state is field 3
		n, err := strconv.ParseUint(string(f[field-3]), 10, 64)
		bad = bad || err != nil
		return n
	}
	s := Stat{PID: pid, State: f[0][0], PPID: int(num(4)), PGID: int(num(5))}
	s.CPU = time.Duration(num(14)+num(15)) * (time.Second / ticksPerSecond)
	s.Start = num(22)
	s.RSS = int64(num(24)) * int64(os.Getpagesize())
	if bad {
		return Stat{}, errStat
	}
	return s, nil
}

// pids lists all processes that /proc shows.
func pids() ([]int, error) {
	d, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	defer func() { _ = d.Close() }()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	out := make([]int, 0, len(names))
	for _, n := range names {
		if pid, err := strconv.Atoi(n); err == nil {
			out = append(out, pid)
		}
	}
	return out, nil
}

// Children lists the direct children of a process, those that ended and wait to be reaped included.
func Children(parent int) ([]int, error) {
	all, err := pids()
	if err != nil {
		return nil, err
	}
	var out []int
	for _, pid := range all {
		if s, err := Read(pid); err == nil && s.PPID == parent {
			out = append(out, pid)
		}
	}
	return out, nil
}

// Life names this run of this process, "pid.start", as it stands in marks.
func Life(pid int) (string, error) {
	s, err := Read(pid)
	if err != nil {
		return "", err
	}
	return strconv.Itoa(pid) + "." + strconv.FormatUint(s.Start, 10), nil
}

// Alive reports whether the run that Life named goes on.
func Alive(life string) bool {
	pid, start, ok := bytes.Cut([]byte(life), []byte("."))
	if !ok {
		return false
	}
	n, err := strconv.Atoi(string(pid))
	if err != nil {
		return false
	}
	s, err := Read(n)
	return err == nil && s.State != 'Z' && strconv.FormatUint(s.Start, 10) == string(start)
}
