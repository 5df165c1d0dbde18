package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestInitSaysWhatItMadeAndWhatToTypeNext(t *testing.T) {
	t.Chdir(t.TempDir())
	got := byHand(t.Context(), "", "init", "hello agent's", "--name", "hello", "--lang", "python")
	want := `made hello agent's: .gitignore, agents.yaml, callback.py, event.json, test_callback.py

Next:
    cd 'hello agent'\''s'
    python3 -m unittest
    reeve run --content @event.json
    reeve dev    # stays in the foreground: the next line goes into another terminal
    reeve publish hello.requested --content @event.json --wait
`
	if got.code != 0 || got.out != want || got.err != "" {
		t.Errorf("got %+v, want\n%s", got, want)
	}
	if got := byHand(t.Context(), "", "init", "-x", "--lang", "go"); got.code != 2 {
		t.Errorf("%+v", got)
	}
}

func TestInitInTheDirectoryItselfNeedsNoCd(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "greeter")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	got := byHand(t.Context(), "", "init", ".", "--topic", "greet.me")
	if got.code != 0 || strings.Contains(got.out, "cd ") || !strings.Contains(got.out, "publish greet.me ") {
		t.Errorf("got %+v", got)
	}
	b, err := os.ReadFile("agents.yaml")
	if err != nil || !strings.Contains(string(b), `name: "greeter"`) {
		t.Errorf("%s, %v", b, err)
	}
}

func TestInitRefusesByNameBeforeItWrites(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.Mkdir("full", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"full/mine.py", "file"} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for line, want := range map[string]struct {
		code int
		says string
	}{
		"init":                             {2, "takes one directory"},
		"init new --lang cobol":            {2, "--lang cobol is unknown: use python, node, go, command"},
		"init new.agent":                   {2, `the agent is named after its directory, and the name "new.agent" is illegal: use letters and digits, parted by single '_' or '-': give another by --name`},
		"init new --name a--b":             {2, `--name: the name "a--b" is illegal`},
		"init new --topic a/b":             {2, `the topic "a/b" is illegal`},
		"init reeve":                       {2, "the topic reeve.requested is one of Reeve's own: give another by --topic"},
		"init full":                        {1, "full is not empty, nothing was written: in the way is mine.py: name another directory"},
		"init file --name n":               {1, "in the way is file"},
		"init file/below --name n":         {1, "error: "},
		"init new --force":                 {2, "unknown flag: --force"},
		"init " + strings.Repeat("n", 249): {2, "characters"},
	} {
		if got := byHand(t.Context(), "", strings.Fields(line)...); got.code != want.code || got.out != "" || !strings.Contains(got.err, want.says) {
			t.Errorf("%s: got %+v, want %d and %q", line, got, want.code, want.says)
		}
	}
	if left, err := os.ReadDir("."); err != nil || len(left) != 2 {
		t.Errorf("left %v, %v", left, err)
	}
}
