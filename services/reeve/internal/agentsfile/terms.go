package agentsfile

import (
	"github.com/goccy/go-yaml/ast"

	"github.com/reeve-run/reeve/services/reeve/internal/admission"
)

// when reads a mapping of conditions; the environment is the only one there is: when: {env: {ENV: production}}.
func when(d *decoder, e *entry, what string, n ast.Node) bool {
	ps, ok := d.pairs(what, n)
	for _, p := range ps {
		if p.key != "env" {
			d.unknown(what, p, []string{"env"})
			ok = false
			continue
		}
		if !d.whenEnv(e, what+".env", p.value) {
			ok = false
		}
	}
	if ok && len(e.terms.When) == 0 {
		d.faults.at(n.GetToken(), "%s names no variable: write %s: {env: {ENV: production}}, or leave it out", what, what)
		return false
	}
	return ok
}

// whenEnv reads variables with the value that they must have, or a list of values.
func (d *decoder) whenEnv(e *entry, what string, n ast.Node) bool {
	ps, ok := d.pairs(what, n)
	for _, p := range ps {
		if err := admission.CheckVariable(p.key); err != nil {
			d.faults.at(p.token, "%s: %v", what, err)
			ok = false
			continue
		}
		values, fine := d.values(what+"."+p.key, p.value)
		if !fine {
			ok = false
			continue
		}
		e.terms.When = append(e.terms.When, admission.Variable{Name: p.key, Values: values})
	}
	return ok
}

// values reads a text, or a list of at least one.
func (d *decoder) values(what string, n ast.Node) ([]string, bool) {
	list, isList := d.unwrap(n).(*ast.SequenceNode)
	if !isList {
		s, ok := d.text(what, n)
		return []string{s}, ok
	}
	if len(list.Values) == 0 {
		d.faults.at(n.GetToken(), "%s is an empty list, which no value is in: give a value", what)
		return nil, false
	}
	return d.texts(what, n)
}

// requires reads the list of what must answer.
func requires(d *decoder, e *entry, what string, n ast.Node) bool {
	nodes, ok := d.items(what, n)
	for _, node := range nodes {
		r, fine := d.requirement("an entry of "+what, node)
		if !fine {
			ok = false
			continue
		}
		e.terms.Requires = append(e.terms.Requires, r)
	}
	return ok
}

// requirement reads one of tcp, http, env, and a timeout beside the first two.
func (d *decoder) requirement(what string, n ast.Node) (r admission.Requirement, ok bool) {
	ps, ok := d.pairs(what, n)
	if !ok {
		return r, false
	}
	var timeout *pair
	for _, p := range ps {
		kind := admission.Kind(p.key)
		switch {
		case p.key == "timeout":
			timeout = &p
		case kind != admission.TCP && kind != admission.HTTP && kind != admission.Env:
			d.unknown("requires", p, []string{"env", "http", "tcp", "timeout"})
			ok = false
		case r.Kind != "":
			d.faults.at(p.token, "%s is one of tcp, http, env, here are %s and %s: part them into two entries", what, r.Kind, kind)
			ok = false
		default:
			r.Kind = kind
			ok = d.target(&r, p) && ok
		}
	}
	if ok && r.Kind == "" {
		d.faults.at(n.GetToken(), "%s says nothing to try: write {tcp: \"host:port\"}, {http: \"http://host:port/path\"} or {env: NAME}", what)
		return r, false
	}
	return r, ok && d.patience(&r, timeout)
}

func (d *decoder) target(r *admission.Requirement, p pair) (ok bool) {
	what := "requires." + p.key
	if r.Target, ok = d.text(what, p.value); !ok {
		return false
	}
	if err := r.Check(); err != nil {
		d.faults.at(p.value.GetToken(), "%s: %v", what, err)
		return false
	}
	return true
}

// patience reads the timeout of a requirement that can take time.
func (d *decoder) patience(r *admission.Requirement, timeout *pair) bool {
	switch {
	case r.Kind == admission.Env && timeout != nil:
		d.faults.at(timeout.token, "requires.timeout belongs to tcp and http: a variable is there or not, leave it out")
		return false
	case r.Kind == admission.Env:
		return true
	case timeout == nil:
		r.Timeout = admission.DefaultTimeout
		return true
	}
	s, ok := d.seconds("requires.timeout", timeout.value)
	if !ok {
		return false
	}
	if limit := admission.MaxTimeout.Seconds(); !(s >= 0.001) || float64(s) > limit {
		d.faults.at(timeout.value.GetToken(), "requires.timeout must be 0.001 to %g seconds", limit)
		return false
	}
	r.Timeout = s.Duration()
	return true
}
