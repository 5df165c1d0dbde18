// Package version says which version of Reeve a program is, and whether two versions understand each other.
//
// The number is a constant of the source tree, so that it is right however the program was built; the revision comes
// from the build, and is unknown where that wasn't made in a checkout.
package version

import (
	"runtime/debug"
	"strconv"
	"strings"
)

// Number is this source tree's version, by Semantic Versioning.
const Number = "0.1.0"

// Header is the name of the HTTP header by which the registry says its version in every answer.
const Header = "Reeve-Version"

// Build is what is known of a program.
type Build struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"` // of the checkout that it was built from; + for one with changes
	Go       string `json:"go"`
}

// Own is the running program's build.
func Own() Build {
	b := Build{Version: Number}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	b.Go = info.GoVersion
	changed := ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			b.Revision = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			changed = "+"
		}
	}
	if b.Revision != "" {
		b.Revision += changed
	}
	return b
}

// Compatible reports whether a client and a registry of two versions understand each other: where the first number that
// isn't 0 is the same, by the rules of Semantic Versioning. A version that can't be read may be anything and is let be.
func Compatible(a, b string) bool {
	x, ok := numbers(a)
	y, readable := numbers(b)
	if !ok || !readable {
		return true
	}
	if x[0] != y[0] {
		return false
	}
	return x[0] > 0 || x[1] == y[1]
}

// Older reports whether a version comes before another one, by major and minor.
func Older(a, b string) bool {
	x, ok := numbers(a)
	y, readable := numbers(b)
	return ok && readable && (x[0] < y[0] || x[0] == y[0] && x[1] < y[1])
}

// numbers are a version's major and minor.
func numbers(v string) (n [2]int, ok bool) {
	parts := strings.SplitN(strings.TrimPrefix(v, "v"), ".", 3)
	if len(parts) < 2 {
		return n, false
	}
	for i := range n {
		var err error
		if n[i], err = strconv.Atoi(parts[i]); err != nil || n[i] < 0 {
			return n, false
		}
	}
	return n, true
}
