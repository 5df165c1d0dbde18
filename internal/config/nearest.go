package config

import (
	"strings"

	"github.com/reeve-run/reeve/pkg/spec"
)

// nearest is the known variable that a misspelt one most likely means, or "" where none is close. What all begin with says
// nothing.
func nearest(name string) string {
	known := append(elsewhere(), ofSecurity()...)
	for _, s := range settings() {
		known = append(known, s.name)
	}
	for i := range known {
		known[i] = strings.TrimPrefix(known[i], prefix)
	}
	if near := spec.Nearest(strings.TrimPrefix(name, prefix), known); near != "" {
		return prefix + near
	}
	return ""
}
