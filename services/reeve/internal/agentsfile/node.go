package agentsfile

import (
	"errors"
	"math"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	"github.com/reeve-run/reeve/pkg/spec"
)

// pair is a key of a mapping with its value.
type pair struct {
	key   string
	token *token.Token // of the key
	value ast.Node
}

// unwrap takes anchors, tags and single-pair mappings off a node.
func (d *decoder) unwrap(n ast.Node) ast.Node {
	switch n := n.(type) {
	case *ast.AnchorNode:
		return d.unwrap(n.Value)
	case *ast.TagNode:
		return d.unwrap(n.Value)
	case *ast.AliasNode:
		d.faults.at(n.GetToken(), "aliases aren't available in agents.yaml: write the value out")
		return nil
	}
	return n
}

// pairs reads a mapping; ok is false, and the fault told, where the node is none.
func (d *decoder) pairs(what string, n ast.Node) (ps []pair, ok bool) {
	var values []*ast.MappingValueNode
	switch n := d.unwrap(n).(type) {
	case *ast.MappingNode:
		values = n.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{n}
	case nil:
		return nil, false
	default:
		d.faults.at(n.GetToken(), "%s must be a mapping of keys to values, it is %s", what, kind(n))
		return nil, false
	}
	for _, v := range values {
		t := v.Key.GetToken()
		ps = append(ps, pair{key: keyText(v.Key), token: t, value: v.Value})
	}
	return ps, true
}

func keyText(k ast.MapKeyNode) string {
	if s, ok := k.(*ast.StringNode); ok {
		return s.Value
	}
	return strings.TrimSpace(k.GetToken().Value)
}

// items reads a sequence.
func (d *decoder) items(what string, n ast.Node) ([]ast.Node, bool) {
	switch n := d.unwrap(n).(type) {
	case *ast.SequenceNode:
		return n.Values, true
	case nil:
		return nil, false
	default:
		d.faults.at(n.GetToken(), "%s must be a list, it is %s", what, kind(n))
		return nil, false
	}
}

// text reads any scalar but null as it is written: version: 1.10 is "1.10", not 1.1.
func (d *decoder) text(what string, n ast.Node) (string, bool) {
	switch n := d.unwrap(n).(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return strings.TrimSpace(n.GetToken().Value), true
	case nil:
		return "", false
	default:
		d.faults.at(n.GetToken(), "%s must be a text, it is %s", what, kind(n))
		return "", false
	}
}

func (d *decoder) texts(what string, n ast.Node) ([]string, bool) {
	nodes, ok := d.items(what, n)
	if !ok {
		return nil, false
	}
	list := make([]string, 0, len(nodes))
	for _, node := range nodes {
		s, fine := d.text("an entry of "+what, node)
		if !fine {
			ok = false
			continue
		}
		list = append(list, s)
	}
	return list, ok
}

func (d *decoder) boolean(what string, n ast.Node) (bool, bool) {
	switch n := d.unwrap(n).(type) {
	case *ast.BoolNode:
		return n.Value, true
	case nil:
		return false, false
	default:
		d.faults.at(n.GetToken(), "%s must be true or false, it is %s", what, kind(n))
		return false, false
	}
}

func (d *decoder) integer(what string, n ast.Node) (int64, bool) {
	switch n := d.unwrap(n).(type) {
	case *ast.IntegerNode:
		switch v := n.Value.(type) {
		case int64:
			return v, true
		case uint64:
			if v <= math.MaxInt64 {
				return int64(v), true
			}
		}
		d.faults.at(n.GetToken(), "%s is out of range", what)
		return 0, false
	case nil:
		return 0, false
	default:
		if v, ok := unread(n); ok && v == math.Trunc(v) {
			d.faults.at(n.GetToken(), "%s is out of range: %s", what, n.GetToken().Value)
			return 0, false
		}
		d.faults.at(n.GetToken(), "%s must be a whole number, it is %s", what, kind(n))
		return 0, false
	}
}

func (d *decoder) number(what string, n ast.Node) (float64, bool) {
	switch n := d.unwrap(n).(type) {
	case *ast.IntegerNode:
		i, ok := d.integer(what, n)
		return float64(i), ok
	case *ast.FloatNode:
		return n.Value, true
	case nil:
		return 0, false
	default:
		if v, ok := unread(n); ok {
			return v, true
		}
		d.faults.at(n.GetToken(), "%s must be a number, it is %s", what, kind(n))
		return 0, false
	}
}

// seconds reads a number of seconds, or infinity.
func (d *decoder) seconds(what string, n ast.Node) (spec.Seconds, bool) {
	switch n := d.unwrap(n).(type) {
	case *ast.IntegerNode:
		f, err := strconv.ParseFloat(strings.ReplaceAll(strings.TrimSpace(n.GetToken().Value), "_", ""), 64)
		if err == nil {
			return spec.Seconds(f), true
		}
		d.faults.at(n.GetToken(), "%s must be a number of seconds in decimal, it is %s", what, n.GetToken().Value)
		return 0, false
	case *ast.FloatNode:
		return spec.Seconds(n.Value), true
	case *ast.InfinityNode:
		return spec.Seconds(n.Value), true
	case *ast.StringNode:
		if n.Value == "infinity" {
			return spec.Seconds(math.Inf(1)), true
		}
		if v, ok := unread(n); ok && !math.IsInf(v, 0) {
			return spec.Seconds(v), true
		}
		d.faults.at(n.GetToken(), "%s must be a number of seconds, as 30 or 0.5, or infinity, it is %q", what, n.Value)
		return 0, false
	case nil:
		return 0, false
	default:
		d.faults.at(n.GetToken(), "%s must be a number of seconds, it is %s", what, kind(n))
		return 0, false
	}
}

// unread is the number that the parser took for a text: it knows neither integers of more than 64 bits nor an exponent
// without a point.
func unread(n ast.Node) (float64, bool) {
	s, ok := n.(*ast.StringNode)
	if !ok || s.Token.Type != token.StringType || strings.Trim(s.Value, "+-0123456789.eE") != "" {
		return 0, false
	}
	v, err := strconv.ParseFloat(s.Value, 64)
	return v, err == nil || errors.Is(err, strconv.ErrRange)
}

// kind names a node as a person would.
func kind(n ast.Node) string {
	switch n := n.(type) {
	case *ast.NullNode:
		return "empty"
	case *ast.StringNode:
		return "the text " + strconv.Quote(n.Value)
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode, *ast.BoolNode:
		return strings.TrimSpace(n.GetToken().Value)
	case *ast.SequenceNode:
		return "a list"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	default:
		return "a " + strings.ToLower(n.Type().String())
	}
}
