package sweep

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// A Kind is what is done to a service.
type Kind string

// The kinds of blows.
const (
	// Kill is SIGKILL to the process that people see, the guard where there is one.
	Kill Kind = "kill"
	// KillInner is SIGKILL to the process below the guard, which does the work.
	KillInner Kind = "kill inner"
	// Stop is SIGSTOP to all of a service's processes, its agents among them, as when a virtual machine is paused, and
	// SIGCONT when another node has long taken over.
	Stop Kind = "stop"
	// StopInner stops the process that does the work and lets its agents run on.
	StopInner Kind = "stop inner"
)

// A Blow is one thing done to one service.
type Blow struct {
	Service string // dispatcher or supervisor
	Node    int    // which of its nodes
	Kind    Kind
	After   time.Duration // from when the system is at work
}

func (b Blow) String() string { return fmt.Sprintf("%s %s %d", b.Kind, b.Service, b.Node) }

// Plan draws up the blows: each service is killed kills times and stopped stops times, in an order and at moments that
// the seed decides.
func Plan(seed uint64, kills, stops, nodes int) []Blow {
	rnd := rand.New(rand.NewPCG(seed, seed))
	var blows []Blow
	for _, service := range []string{"dispatcher", "supervisor"} {
		for i := range kills {
			blows = append(blows, Blow{Service: service, Kind: pick(service, i, Kill, KillInner)})
		}
		for i := range stops {
			blows = append(blows, Blow{Service: service, Kind: pick(service, i, Stop, StopInner)})
		}
	}
	rnd.Shuffle(len(blows), func(i, j int) { blows[i], blows[j] = blows[j], blows[i] })
	for i := range blows {
		blows[i].Node = rnd.IntN(nodes)
		blows[i].After = time.Duration(rnd.IntN(1500)) * time.Millisecond
	}
	return blows
}

// pick takes the two kinds in turn; a dispatcher is one process.
func pick(service string, i int, outer, inner Kind) Kind {
	if service == "supervisor" && i%2 == 1 {
		return inner
	}
	return outer
}
