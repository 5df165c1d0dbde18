package admission

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"
)

// How long a requirement may take to answer, by default and at most: somebody waits for the command.
const (
	DefaultTimeout = 5 * time.Second
	MaxTimeout     = 5 * time.Minute
)

// atOnce bounds how many requirements are tried at a time.
const atOnce = 16

// Terms are the conditions of an entry. The zero value admits always.
type Terms struct {
	// When names environment variables, each with the values of which it must have one. An unset variable counts as
	// empty.
	When []Variable
	// Requires is what must answer. It is tried only where When holds.
	Requires []Requirement
}

// Variable is an environment variable with the values that it may have.
type Variable struct {
	Name   string
	Values []string
}

// Kind is how a requirement is tried.
type Kind string

// The kinds.
const (
	TCP  Kind = "tcp"  // a connection to host:port is accepted
	HTTP Kind = "http" // a GET of the URL is answered with a status of 200 to 299
	Env  Kind = "env"  // the environment variable is set and not empty
)

// Requirement is one thing that must answer.
type Requirement struct {
	Kind    Kind
	Target  string        // host:port, URL or variable, by the kind
	Timeout time.Duration // of TCP and HTTP
}

// String is what is asked for, as people read it: tcp 127.0.0.1:5432.
func (r Requirement) String() string { return string(r.Kind) + " " + r.Target }

// Verdict is what becomes of an entry.
type Verdict int

// The verdicts.
const (
	Admitted Verdict = iota
	Skipped          // when doesn't hold
	Failed           // a requirement fails
)

// Ruling is a verdict with its reason, "" for Admitted.
type Ruling struct {
	Verdict Verdict
	Reason  string
}

// Judge rules on every one of terms, in their order. environ is in the form of os.Environ. It returns when every
// requirement has been tried or has used up its timeout; when the context ends, what wasn't tried fails.
func Judge(ctx context.Context, terms []Terms, environ []string) []Ruling {
	rulings := make([]Ruling, len(terms))
	var needed []Requirement
	for n, t := range terms {
		if reason := skip(t.When, environ); reason != "" {
			rulings[n] = Ruling{Skipped, reason}
			continue
		}
		for _, r := range t.Requires {
			if !slices.Contains(needed, r) {
				needed = append(needed, r)
			}
		}
	}
	problems := tryAll(ctx, needed, environ)
	for n, t := range terms {
		if rulings[n].Verdict == Admitted {
			rulings[n] = require(t.Requires, problems)
		}
	}
	return rulings
}

// skip says which variable doesn't have the value that it must have, or "".
func skip(when []Variable, environ []string) string {
	for _, v := range when {
		value, set := lookUp(environ, v.Name)
		if slices.Contains(v.Values, value) {
			continue
		}
		is := `is "` + value + `"`
		if !set {
			is = "is not set"
		}
		return "the environment variable " + v.Name + " " + is + `, the entry is for "` + strings.Join(v.Values, `" or "`) + `"`
	}
	return ""
}

// require rules on requirements whose problems, "" for none, are known.
func require(rs []Requirement, problems map[Requirement]string) Ruling {
	var failed []string
	for _, r := range rs {
		if p := problems[r]; p != "" {
			failed = append(failed, r.String()+": "+p)
		}
	}
	if len(failed) == 0 {
		return Ruling{}
	}
	return Ruling{Failed, strings.Join(failed, "; ")}
}

// tryAll tries requirements side by side.
func tryAll(ctx context.Context, rs []Requirement, environ []string) map[Requirement]string {
	problems := make(map[Requirement]string, len(rs))
	var mu sync.Mutex
	var work sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for _, r := range rs {
		slots <- struct{}{}
		work.Go(func() {
			defer func() { <-slots }()
			p := r.try(ctx, environ)
			mu.Lock()
			problems[r] = p
			mu.Unlock()
		})
	}
	work.Wait()
	return problems
}

func lookUp(environ []string, name string) (value string, set bool) {
	for _, e := range slices.Backward(environ) {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v, true
		}
	}
	return "", false
}
