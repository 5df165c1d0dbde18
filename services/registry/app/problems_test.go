package app_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/reeve-run/reeve/services/registry/api"
)

// operations are the methods of each path of the description, and whether they take a body.
func operations(t *testing.T) map[string]map[string]bool {
	t.Helper()
	var doc struct {
		Paths map[string]map[string]any
	}
	if err := yaml.Unmarshal(api.OpenAPI(), &doc); err != nil {
		t.Fatal(err)
	}
	out := map[string]map[string]bool{}
	for path, item := range doc.Paths {
		path = strings.NewReplacer("{partition}", "0", "{offset}", "0", "{topic}", "orders", "{name}", "a", "{", "", "}", "").Replace(path)
		out[path] = map[string]bool{}
		for method, about := range item {
			if operation, ok := about.(map[string]any); ok {
				_, out[path][strings.ToUpper(method)] = operation["requestBody"]
			}
		}
	}
	if len(out) < 40 {
		t.Fatalf("only %d paths were found", len(out))
	}
	return out
}

// Whatever the operation, what it doesn't take is refused by a problem that says what is wrong, and nothing is changed.
func TestEveryOperationRefusesWhatItDoesNotTake(t *testing.T) {
	t.Parallel()
	r := start(t, configuration(t))
	before := r.want(201, "POST", "/v1/agents", agent)["agent"].(map[string]any)["generation"]
	refused := func(method, path, body string, status int, says ...string) {
		t.Helper()
		got, p := r.do(method, path, body)
		if got != status || !slices.ContainsFunc(says, func(s string) bool { return strings.Contains(fmt.Sprint(p["detail"]), s) }) {
			t.Errorf("%s %s %s: %d %v, want %d %q", method, path, body, got, p, status, says)
		}
	}
	for path, methods := range operations(t) {
		for method, body := range methods {
			refused(method, path+"?%ff=1", "", 400, "the name of a query parameter is no text")
			refused(method, path+"?x=%00", "", 400, "the query parameter x is no text")
			refused(method, path+"?x=%zz", "", 400, "the query can't be read")
			if !body {
				refused(method, path+"?nonsense=1", "", 400, `"nonsense" does not exist`, "is missing")
				continue
			}
			refused(method, path, "{", 400, "the body is empty or cut off")
			refused(method, path, "null", 400, "the body is null")
			refused(method, path, `{"a":"`+"\xff"+`"}`, 400, "the body is no UTF-8")
			if path == "/v1/agents" || path == "/v1/agents/orders/a" { // of which every fault is told
				refused(method, path, "[]", 422, "an agent is an object of keys and values, this is a list")
				refused(method, path, `{"topic":"orders","name":"a","command":"x","nonsense":1}`, 422, "nonsense: is no key of an agent")
				continue
			}
			refused(method, path, "[]", 400, "the body is a JSON array: give an object of keys and values")
			refused(method, path, `{"nonsense":1}`, 400, `"nonsense" does not exist`)
			refused(method, path, "{} {}", 400, "something behind the body's JSON object")
		}
		for _, method := range []string{"PATCH", "PUT", "DELETE", "POST"} {
			if _, takes := methods[method]; !takes {
				refused(method, path, "", 405, method+" is not possible on "+path)
			}
		}
	}
	if now := r.want(200, "GET", "/v1/agents/orders/a", "")["generation"]; now != before {
		t.Errorf("the agent has changed: its generation was %v, and is %v", before, now)
	}
}

func TestAnAgentThatIsNotThereIsNamed(t *testing.T) {
	t.Parallel()
	r := start(t, configuration(t))
	for path, methods := range operations(t) {
		for method, body := range methods {
			if !strings.Contains(path+"/", "/orders/a/") || body || strings.Contains(path, "/tasks/") || strings.Contains(path, "/orders/a/orders/") {
				continue // there a task or an order is missing
			}
			if got, p := r.do(method, path, ""); got != 404 || p["code"] != "agent_not_found" || p["detail"] != "there is no agent orders/a" {
				t.Errorf("%s %s: %d %v", method, path, got, p)
			}
		}
	}
}
