package cli

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/reeve-run/reeve/pkg/client"
)

// inCommands says a problem of the registry for somebody who types commands: where it names a request, that has a command.
func inCommands(text string) string {
	const part = `([^/\s;,]+)`
	for _, r := range []struct{ request, command string }{
		{`\n?see GET /v1/agents for those there are`, ``}, // what is near is told behind it
		{`GET /v1/agents/` + part + `/` + part + `/metrics`, "`reeve metrics`"},
		{`GET /v1/agents`, "`reeve agent list`"},
		{`GET /v1/dlq/` + part + `/` + part + `/orders(/` + part + `)?`, "`reeve dlq orders $1/$2`"},
		{`GET /v1/dlq/` + part + `/` + part, "`reeve dlq list $1/$2`"},
		{`GET /v1/webhooks/dlq/orders(/` + part + `)?`, "`reeve webhook orders`"},
		{`GET /v1/webhooks/dlq`, "`reeve webhook list`"},
		{`GET /v1/tasks/` + part + `/` + part + `/` + part + `/` + part, "`reeve task get $1/$2/$3/$4`"},
		{`GET /v1/tasks`, "`reeve task list`"},
		{`GET /health`, "`reeve health`"},
		{`what POST /v1/events answered`, "what `reeve publish` said of it"},
		{`correct the fields in errors`, `correct what is named above`},
	} {
		text = regexp.MustCompile(r.request).ReplaceAllString(text, r.command)
	}
	return text
}

// renamed calls the fields that a problem finds fault with by other names. It changes the problem in the error.
func renamed(err error, name func(field string) string) error {
	var p *client.ProblemError
	if !errors.As(err, &p) {
		return err
	}
	for i, f := range p.Errors {
		called := name(f.Field)
		p.Detail = strings.Replace(p.Detail, f.Field+": "+f.Message, called+": "+f.Message, 1)
		p.Errors[i].Field = called
	}
	return err
}

// flagOf is the flag of publish that gives a field of an event.
func flagOf(field string) string {
	switch f := strings.TrimPrefix(field, "payload."); f {
	case "topic":
		return "TOPIC"
	case "id", "key", "type", "content", "webhook", "source", "reply_to", "correlation_id", "causation_id", "tenant_id":
		return "--" + strings.ReplaceAll(f, "_", "-")
	}
	return field
}

// placeOf names the entry that a field of a list of agents belongs to: agents[0].topic stands in the first.
func (s Selection) placeOf(field string) string {
	var n int
	if _, err := fmt.Sscanf(field, "agents[%d]", &n); err != nil || n < 0 || n >= len(s.places) {
		return field
	}
	_, key, _ := strings.Cut(field, "]")
	return strings.TrimSuffix(s.places[n]+": "+s.Agents[n].Ref()+": "+strings.TrimPrefix(key, "."), ": ")
}

var parseError = regexp.MustCompile(`strconv\.Parse(\w+): parsing ("(?:[^"\\]|\\.)*"): (.*)`)

// inWords says in words what kept a flag's value from being read.
func inWords(text string) string {
	m := parseError.FindStringSubmatchIndex(text)
	if m == nil {
		return text
	}
	what := "give a whole number"
	switch kind := text[m[2]:m[3]]; {
	case strings.HasSuffix(text, "value out of range"):
		what = "it is out of range"
	case kind == "Bool":
		what = "give true or false"
	case kind == "Float":
		what = "give a number"
	}
	return text[:m[0]] + what
}
