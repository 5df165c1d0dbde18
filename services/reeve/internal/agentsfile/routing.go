package agentsfile

import (
	"github.com/goccy/go-yaml/ast"

	"github.com/reeve-run/reeve/pkg/filter"
	"github.com/reeve-run/reeve/pkg/spec"
)

// filled refuses an empty value: it would count as left out.
func filled(set setter) setter {
	return func(d *decoder, e *entry, what string, n ast.Node) bool {
		if s, ok := n.(*ast.StringNode); ok && s.Value == "" {
			d.faults.at(n.GetToken(), "%s is empty: leave it out", what)
			return false
		}
		return set(d, e, what, n)
	}
}

func rate(d *decoder, e *entry, what string, n ast.Node) bool {
	r, ok := d.number(what, n)
	if ok && r == 0 {
		d.faults.at(n.GetToken(), "%s: %s", what, spec.ZeroRate)
		return false
	}
	e.agent.Rate = r
	return ok
}

// checkFilter compiles the filter, as the registry does.
func (d *decoder) checkFilter(e *entry) {
	if err := filter.Check(e.agent.Filter); err != nil {
		d.faults.at(e.at("filter"), "filter: %v", err)
	}
}
