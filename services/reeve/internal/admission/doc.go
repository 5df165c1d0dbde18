// Package admission decides which entries of agents.yaml are registered here and now: by the environment of the command
// that applies the file (when), and by whether what an agent depends on answers (requires).
//
// An entry whose when doesn't hold is skipped, which is as intended. One whose when holds and of whose requirements one
// fails isn't registered either, and that is a failure. In both cases a registered agent of that name stays as it is: the
// entry says under which conditions it counts, not that the agent is to go.
//
// Each distinct requirement is tried once, however many entries name it, and at most once: what comes up later is found
// by the next apply.
package admission
