// Package profile keeps the registries that a person works with, each under a name, in one file of that person's.
//
// The file may hold keys: it is written for its owner alone, whole or not at all, and no error and no listing shows a
// key.
package profile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
)

// File is what the file holds.
type File struct {
	// Current is the profile that is used where none is named. Empty for none.
	Current  string             `yaml:"current,omitempty"`
	Profiles map[string]Profile `yaml:"profiles,omitempty"`
}

// Profile is one registry and how it is talked to. At most one of the three keys is set.
type Profile struct {
	URL        string `yaml:"url"`
	APIKey     string `yaml:"api_key,omitempty"`
	APIKeyFile string `yaml:"api_key_file,omitempty"` // a file that holds the key
	APIKeyEnv  string `yaml:"api_key_env,omitempty"`  // a variable that holds the key
	CA         string `yaml:"ca,omitempty"`           // a PEM file with who may vouch for an https URL, instead of the system's
}

// Path is where the file is: below XDG_CONFIG_HOME, else below .config in HOME. Variable gives the value of an environment's
// variable.
func Path(variable func(string) string) (string, error) {
	base := variable("XDG_CONFIG_HOME")
	if !filepath.IsAbs(base) { // the XDG rules ignore a relative one
		home := variable("HOME")
		if home == "" {
			return "", errors.New("there is no place for a configuration file: set HOME or XDG_CONFIG_HOME")
		}
		base = filepath.Join(home, ".config")
	}
	return filepath.Join(base, "reeve", "config.yaml"), nil
}

// Read reads a file; one that isn't there is empty.
func Read(path string) (File, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return File{}, nil
	}
	if err != nil {
		return File{}, err
	}
	var f File
	err = yaml.NewDecoder(bytes.NewReader(b), yaml.Strict()).Decode(&f)
	if err != nil && !errors.Is(err, io.EOF) {
		// Without the source, which may show a key.
		return File{}, fmt.Errorf("%s: %s: it holds current and profiles, and a profile url, api_key, api_key_file, api_key_env and ca", path, yaml.FormatError(err, false, false))
	}
	for _, name := range f.Names() {
		if err := f.Profiles[name].Check(); err != nil {
			return File{}, fmt.Errorf("%s: profile %s: %w", path, name, err)
		}
	}
	return f, nil
}

// Write writes a file for its owner alone, whole or not at all.
func (f File) Write(path string) (err error) {
	b, err := yaml.Marshal(f)
	if err != nil {
		return err
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // a link stays one
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	temp, err := os.CreateTemp(dir, ".config-*") // which gives 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = temp.Close()
			_ = os.Remove(temp.Name())
		}
	}()
	if _, err := temp.Write(b); err != nil {
		return err
	}
	if err := temp.Sync(); err != nil {
		return err
	}
	if err := temp.Close(); err != nil {
		return err
	}
	return os.Rename(temp.Name(), path)
}

// Exposed reports whether others than the owner may read a file that holds a key.
func (f File) Exposed(path string) bool {
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm()&0o077 == 0 {
		return false
	}
	for _, p := range f.Profiles {
		if p.APIKey != "" {
			return true
		}
	}
	return false
}

// Names are the profiles' names in their order.
func (f File) Names() []string { return slices.Sorted(maps.Keys(f.Profiles)) }

var nameRule = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// CheckName reports why a name is illegal, or nil.
func CheckName(name string) error {
	if !nameRule.MatchString(name) {
		return fmt.Errorf("%q is no name for a profile: use 1 to 63 letters, digits, '.', '_' and '-', the first a letter or digit", name)
	}
	return nil
}

// Check reports what is wrong with a profile.
func (p Profile) Check() error {
	u, err := url.Parse(p.URL)
	switch {
	case p.URL == "":
		return errors.New("it has no url: give the registry's, as http://127.0.0.1:8765")
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return errors.New("its url is no URL of http or https: give it as http://127.0.0.1:8765 or https://reeve.example.org")
	case u.User != nil:
		return errors.New("its url holds credentials: give the key by api_key, api_key_file or api_key_env")
	case p.CA != "" && u.Scheme != "https":
		return errors.New("it has a ca and no https url: a CA vouches for https only")
	}
	given := 0
	for _, key := range []string{p.APIKey, p.APIKeyFile, p.APIKeyEnv} {
		if key != "" {
			given++
		}
	}
	if given > 1 {
		return errors.New("it has more than one of api_key, api_key_file and api_key_env: keep one")
	}
	return nil
}

// KeyFrom says where a profile's key comes from, without showing it; "" where it has none.
func (p Profile) KeyFrom() string {
	switch {
	case p.APIKey != "":
		return "api_key"
	case p.APIKeyFile != "":
		return "file " + p.APIKeyFile
	case p.APIKeyEnv != "":
		return "variable " + p.APIKeyEnv
	}
	return ""
}

// Key gives a profile's key; "" where it has none.
func (p Profile) Key(variable func(string) string) (string, error) {
	switch {
	case p.APIKeyFile != "":
		b, err := os.ReadFile(p.APIKeyFile)
		if err != nil {
			return "", fmt.Errorf("read the key: %w", err)
		}
		key := strings.TrimSpace(string(b))
		if key == "" || strings.ContainsAny(key, "\r\n") {
			return "", fmt.Errorf("read the key: %s doesn't hold one line with a key", p.APIKeyFile)
		}
		return key, nil
	case p.APIKeyEnv != "":
		key := variable(p.APIKeyEnv)
		if key == "" {
			return "", fmt.Errorf("read the key: the variable %s is not set", p.APIKeyEnv)
		}
		return key, nil
	}
	return p.APIKey, nil
}
