package app_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/reeve-run/reeve/services/registry/api"
)

// The page for those who come from OmniDaemon names no path that isn't there, and leaves out none that is only for them.
func TestThePageFromOmniDaemonNamesEachPath(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../../docs/from-omnidaemon.md")
	if err != nil {
		t.Fatal(err)
	}
	operations := map[string]bool{"GET /metrics": true} // the one that isn't made from the file
	path := ""
	for line := range strings.Lines(string(api.OpenAPI())) {
		if m := regexp.MustCompile(`^  (/\S*):$`).FindStringSubmatch(strings.TrimRight(line, "\n")); m != nil {
			path = m[1]
		}
		if m := regexp.MustCompile(`^    (get|post|delete):$`).FindStringSubmatch(strings.TrimRight(line, "\n")); m != nil && path != "" {
			operations[strings.ToUpper(m[1])+" "+path] = true
		}
	}
	named := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `((?:GET|POST|DELETE) /\\S*)`").FindAllStringSubmatch(string(page), -1) {
		named[m[1]] = true
		if !operations[m[1]] {
			t.Errorf("there is no %s", m[1])
		}
	}
	for operation := range operations {
		_, path, _ := strings.Cut(operation, " ")
		byQuery := path == "/bus/inspect" || path == "/bus/groups" || path == "/bus/dlq"
		if alias := !strings.HasPrefix(path, "/v1/"); alias && !byQuery && !named[operation] {
			t.Errorf("the page doesn't name %s", operation)
		}
	}
}
