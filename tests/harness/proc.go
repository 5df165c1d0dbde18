package harness

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// An Identity is one process for good: its number may be used again, its start time not.
type Identity struct {
	PID   int
	Start uint64 // in clock ticks since the machine started
}

// Marked are the processes whose environment holds mark as NAME=value. Ones that ended while nobody has waited for them
// don't count, nor does one that was started within the last moment: the kernel shows a new program's environment a little
// after its start.
func Marked(mark string) []Identity {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	var found []Identity
	for _, dir := range dirs {
		env, err := os.ReadFile(filepath.Join(dir, "environ"))
		if err != nil || !slices.ContainsFunc(bytes.Split(env, []byte{0}), func(kv []byte) bool { return string(kv) == mark }) {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(dir))
		if st, err := readStat(pid); err == nil && st.state != "Z" && st.state != "X" {
			found = append(found, Identity{pid, st.start})
		}
	}
	return found
}

// Children are a process's children, grandchildren and so on, as they are now.
func Children(pid int) []int {
	parents := map[int][]int{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		child, _ := strconv.Atoi(filepath.Base(dir))
		if st, err := readStat(child); err == nil {
			parents[st.parent] = append(parents[st.parent], child)
		}
	}
	var all []int
	for next := parents[pid]; len(next) > 0; {
		all = append(all, next...)
		var below []int
		for _, c := range next {
			below = append(below, parents[c]...)
		}
		next = below
	}
	return all
}

// CPU is how many seconds of processor time a process has used, its own and that of the children it waited for.
func CPU(pid int) float64 {
	st, err := readStat(pid)
	if err != nil {
		return 0
	}
	return float64(st.ticks) / 100 // USER_HZ is 100 on every Linux that Go runs on
}

type stat struct {
	state  string
	parent int
	ticks  uint64
	start  uint64
}

// readStat reads /proc/<pid>/stat, as proc(5) has it. The name in parentheses may hold spaces and parentheses itself.
func readStat(pid int) (stat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, err
	}
	text := string(b)
	f := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(f) < 20 {
		return stat{}, fmt.Errorf("read the state of process %d: %q", pid, text)
	}
	number := func(i int) uint64 { n, _ := strconv.ParseUint(f[i], 10, 64); return n }
	return stat{state: f[0], parent: int(number(1)), ticks: number(11) + number(12) + number(13) + number(14), start: number(19)}, nil
}

// Identify gives a running process's identity.
func Identify(pid int) (Identity, error) {
	st, err := readStat(pid)
	return Identity{pid, st.start}, err
}

// Alive reports whether the process still runs; one that only waits to be waited for doesn't.
func (i Identity) Alive() bool {
	st, err := readStat(i.PID)
	return err == nil && st.start == i.Start && st.state != "Z" && st.state != "X"
}

// SameProgram reports whether two processes run the same file.
func SameProgram(one, two int) bool {
	a, err1 := os.Readlink(fmt.Sprintf("/proc/%d/exe", one))
	b, err2 := os.Readlink(fmt.Sprintf("/proc/%d/exe", two))
	return err1 == nil && err2 == nil && a == b
}
