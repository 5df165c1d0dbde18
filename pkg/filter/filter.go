package filter

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// MaxLength is how many bytes an expression may have.
	MaxLength = 4096
	// MaxCost is how much one evaluation may cost, in CEL's own unit: about one for each operation, and for each ten bytes
	// of a text that is looked through.
	MaxCost = 1_000_000
)

// Filter is a compiled expression. It may be used by several goroutines at once.
type Filter struct{ program cel.Program }

// environment has what expressions may name. It is built once, on first use, and never changes.
var environment = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(
		cel.OptionalTypes(),
		cel.Variable("data", cel.DynType),
		cel.Variable("headers", cel.MapType(cel.StringType, cel.StringType)),
		cel.Variable("key", cel.StringType),
		cel.Variable("topic", cel.StringType),
		cel.Variable("type", cel.StringType),
		cel.Variable("envelope", cel.MapType(cel.StringType, cel.DynType)),
	)
})

// Compile parses and checks an expression. Its error says to a person what is wrong, where, and what to do.
func Compile(expression string) (*Filter, error) {
	if len(expression) > MaxLength {
		return nil, fmt.Errorf("has %d bytes, at most %d are taken: let the agent itself look at the rest", len(expression), MaxLength)
	}
	env, err := environment()
	if err != nil {
		return nil, fmt.Errorf("prepare CEL: %w", err)
	}
	checked, issues := env.Compile(expression)
	if issues.Err() != nil {
		return nil, explain(expression, issues)
	}
	if t := checked.OutputType(); !t.IsExactType(cel.BoolType) {
		return nil, noBool(expression, t)
	}
	options := []cel.ProgramOption{cel.EvalOptions(cel.OptOptimize)}
	// Counting the cost makes an evaluation two to three times as dear. Without loops and patterns it isn't needed: no more is
	// done than the expression's own length allows.
	if repeats(checked.NativeRep().Expr()) {
		options = append(options, cel.CostLimit(MaxCost))
	}
	program, err := env.Program(checked, options...)
	if err != nil {
		return nil, fmt.Errorf("is a CEL expression that can't be run: %w: correct it", err)
	}
	return &Filter{program}, nil
}

// Check is Compile for those who only want to know; "" is no filter and right.
func Check(expression string) error {
	if expression == "" {
		return nil
	}
	_, err := Compile(expression)
	return err
}

// Match evaluates the filter for a record of a user's topic. An error says that it can't be evaluated for that record; it
// is a *event.FormatError where the record claims a format and isn't in it.
func (f *Filter) Match(topic string, r *kgo.Record) (bool, error) {
	in := input{topic: topic, record: r}
	out, _, err := f.program.Eval(&in)
	switch {
	case in.err != nil:
		return false, in.err
	case err != nil && strings.Contains(err.Error(), "actual cost limit exceeded"):
		return false, fmt.Errorf("the filter looks at too much of this event: it is stopped after %d steps", MaxCost)
	case err != nil:
		return false, fmt.Errorf("the filter can't be evaluated: %w", err)
	}
	return out == types.True, nil
}

// explain turns the compiler's findings into one line.
func explain(expression string, issues *cel.Issues) error {
	lines := strings.Count(expression, "\n") > 0
	var found []string
	for _, e := range issues.Errors() {
		message, _, _ := strings.Cut(e.Message, " expecting {") // a list of all words that CEL has
		place := fmt.Sprintf("column %d", max(e.Location.Column()+1, 1))
		if lines {
			place = fmt.Sprintf("line %d, %s", e.Location.Line(), place)
		}
		found = append(found, place+": "+message)
	}
	if len(found) > 3 {
		found = append(found[:3:3], fmt.Sprintf("and %d more", len(found)-3))
	}
	return errors.New("is no CEL expression that can be used: " + strings.Join(found, "; ") +
		": correct it; it may name data, headers, key, topic, type and envelope")
}

func noBool(expression string, t *cel.Type) error {
	if t.IsExactType(cel.DynType) {
		return fmt.Errorf("may result in anything, and must be true or false: compare it, as in %s == true", expression)
	}
	return fmt.Errorf("results in %s, and must be true or false: compare it with something", t)
}

// repeats reports whether an event decides how much is to be done: by loops, and by patterns to be matched.
func repeats(e ast.Expr) bool {
	found := false
	ast.PreOrderVisit(e, ast.NewExprVisitor(func(e ast.Expr) {
		found = found || e.Kind() == ast.ComprehensionKind || e.Kind() == ast.CallKind && e.AsCall().FunctionName() == overloads.Matches
	}))
	return found
}
