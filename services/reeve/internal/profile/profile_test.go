package profile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func env(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func TestTheFileIsWhereXDGSays(t *testing.T) {
	for _, tt := range []struct {
		variable func(string) string
		want     string
	}{
		{env("XDG_CONFIG_HOME", "/x", "HOME", "/h"), "/x/reeve/config.yaml"},
		{env("HOME", "/h"), "/h/.config/reeve/config.yaml"},
		{env("XDG_CONFIG_HOME", "relative", "HOME", "/h"), "/h/.config/reeve/config.yaml"},
		{env(), ""},
	} {
		if got, err := Path(tt.variable); got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("got %q, %v; want %q", got, err, tt.want)
		}
	}
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "config.yaml")
	want := File{Current: "a", Profiles: map[string]Profile{"a": {URL: "http://x:1", APIKey: "k: '\"#"}, "b": {URL: "https://y", APIKeyEnv: "E", CA: "/ca"}}}
	for range 2 { // the second time over what is there
		if err := want.Write(path); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Read(path)
	if err != nil || !cmp.Equal(got, want) {
		t.Errorf("%v, %s", err, cmp.Diff(want, got))
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("%v, %v", left, err)
	}
	if want.Exposed(path) {
		t.Error("a file for its owner counts as exposed")
	}
	if err := os.Chmod(path, 0o644); err != nil || !want.Exposed(path) {
		t.Errorf("a file for everybody counts as hidden: %v", err)
	}
}

func TestALinkToTheFileStaysOne(t *testing.T) {
	dir := t.TempDir()
	real, link := filepath.Join(dir, "real.yaml"), filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(real, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	if err := (File{Profiles: map[string]Profile{"a": {URL: "http://x"}}}).Write(link); err != nil {
		t.Fatal(err)
	}
	if f, err := Read(real); err != nil || len(f.Profiles) != 1 {
		t.Errorf("%+v, %v", f, err)
	}
}

func TestAFileThatIsNotThereIsEmpty(t *testing.T) {
	if f, err := Read(filepath.Join(t.TempDir(), "none")); err != nil || len(f.Profiles) != 0 {
		t.Errorf("%+v, %v", f, err)
	}
}

func TestAFileWithAFaultIsRefusedWithoutShowingAKey(t *testing.T) {
	for text, says := range map[string]string{
		"profiles: {a: {url: 'http://x', api_key: SECRET, kye: 1}}":         "kye",
		"profiles: {a: {url: 'http://x', api_key: SECRET, api_key_env: E}}": "more than one of api_key",
		"profiles: {a: {api_key: SECRET}}":                                  "it has no url",
		"profiles: {a: {url: 'ftp://x', api_key: SECRET}}":                  "its url is no URL",
		"profiles: {a: {url: 'http://u:SECRET@x'}}":                         "holds credentials",
		"profiles: {a: {url: 'http://x', ca: /c, api_key: SECRET}}":         "a CA vouches for https only",
		"profiles: {a: {url: 'http://x', api_key: SECRET}, a: {url: 'y'}}":  "config.yaml",
		"profiles: [SECRET]":                              "config.yaml",
		"profiles: {a: {url: 'http://x', api_key: SECRET": "config.yaml",
	} {
		path := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Read(path)
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestAKeyComesFromWhereTheProfileSays(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte("filed\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	lines := filepath.Join(t.TempDir(), "lines")
	if err := os.WriteFile(lines, []byte("a\nb\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		profile    Profile
		key, fails string
	}{
		{Profile{}, "", ""},
		{Profile{APIKey: "k"}, "k", ""},
		{Profile{APIKeyFile: file}, "filed", ""},
		{Profile{APIKeyFile: lines}, "", "one line"},
		{Profile{APIKeyFile: file + "x"}, "", "no such file"},
		{Profile{APIKeyEnv: "E"}, "kept", ""},
		{Profile{APIKeyEnv: "F"}, "", "the variable F is not set"},
	} {
		got, err := tt.profile.Key(env("E", "kept"))
		if got != tt.key || (err != nil) != (tt.fails != "") || err != nil && !strings.Contains(err.Error(), tt.fails) {
			t.Errorf("%+v: %q, %v", tt.profile, got, err)
		}
		if from := tt.profile.KeyFrom(); (from == "") != (tt.profile == Profile{}) || tt.key != "" && strings.Contains(from, tt.key) && tt.profile.APIKey == "" {
			t.Errorf("%+v: from %q", tt.profile, from)
		}
	}
}

func TestNames(t *testing.T) {
	for name, ok := range map[string]bool{"prod": true, "eu-1.a_b": true, "": false, "-x": false, "a b": false, strings.Repeat("a", 64): false} {
		if err := CheckName(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}
