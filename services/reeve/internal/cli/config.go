package cli

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/reeve-run/reeve/services/reeve/internal/profile"
)

func (c *command) config() *cobra.Command {
	return group(&cobra.Command{
		Use: "config", Short: "Keep the registries that you work with as profiles",
		Long: `Keep the registries that you work with as profiles: each has a URL, and if need be a key and a CA.

--profile NAME or REEVE_PROFILE takes a profile for one command or one shell, ` + "`reeve config use`" + ` for all. The current
profile is left out where --url or REEVE_URL says where to go: its key is for its own registry.`,
	}, c.configList(), c.configGet(), c.configSet(), c.configUse(), c.configDelete(), c.configPath())
}

// shown is a profile without its key.
type shown struct {
	Name    string `json:"name"`
	Current bool   `json:"current"`
	URL     string `json:"url"`
	KeyFrom string `json:"api_key_from,omitempty"`
	CA      string `json:"ca,omitempty"`
}

func (c *command) configList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List the profiles", Args: exactly(0, "no arguments"),
		Example: "  reeve config list\n  reeve config list -o json",
		RunE: func(*cobra.Command, []string) error {
			file, err := c.profiles()
			if err != nil {
				return err
			}
			list := []shown{}
			var rows [][]string
			for _, name := range file.Names() {
				p := file.Profiles[name]
				s := shown{name, name == file.Current, p.URL, p.KeyFrom(), p.CA}
				list = append(list, s)
				rows = append(rows, []string{map[bool]string{true: "*"}[s.Current], s.Name, s.URL, orDash(s.KeyFrom), orDash(s.CA)})
			}
			return c.write(map[string]any{"items": list}, func() { c.table([]string{"", "NAME", "URL", "KEY FROM", "CA"}, rows) })
		},
	}
	return alone(c.outputFlag(cmd))
}

func (c *command) configGet() *cobra.Command {
	cmd := &cobra.Command{
		Use: "get [NAME]", Short: "Show a profile; without a name, which registry is asked and who says so",
		Example: "  reeve config get\n  reeve config get prod\n  reeve --profile prod config get",
		Args:    atMostOne("one profile"),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				conn, err := c.connection()
				if err != nil {
					return err
				}
				return c.write(conn, func() {
					c.facts("URL", conn.URL, "From", conn.URLFrom, "Key from", orDash(conn.KeyFrom), "CA", conn.CA, "Profile", orDash(conn.Profile))
				})
			}
			if c.url != "" || c.profile != "" {
				return usage("`reeve config get %s` shows the profile as it is: leave out --url and --profile", args[0])
			}
			file, err := c.profiles()
			if err != nil {
				return err
			}
			p, err := find(file, args[0])
			if err != nil {
				return err
			}
			s := shown{args[0], args[0] == file.Current, p.URL, p.KeyFrom(), p.CA}
			return c.write(s, func() {
				c.facts("Profile", s.Name, "Current", yesNo(s.Current), "URL", s.URL, "Key from", orDash(s.KeyFrom), "CA", s.CA)
			})
		},
	}
	cmd.ValidArgsFunction = c.completeProfiles
	return c.outputFlag(cmd)
}

// atMostOne takes nothing or one argument.
func atMostOne(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 {
			return usage("%s takes %s at most, here are %d arguments: see `%s --help`", cmd.CommandPath(), what, len(args), cmd.CommandPath())
		}
		return nil
	}
}

func (c *command) configSet() *cobra.Command {
	var p profile.Profile
	var use bool
	cmd := &cobra.Command{
		Use:   "set NAME",
		Short: "Make a profile, or change what is given of one",
		Long: `Make a profile, or change what is given of one; an empty value takes a setting away.

Of the three ways to give a key the last given holds. --api-key - reads it from standard input, so that it stands in no
history and in no list of processes.`,
		Example: "  reeve config set local --url http://127.0.0.1:8765 --use\n" +
			"  reeve config set prod --url https://reeve.example.org --ca ca.pem --api-key-env PROD_KEY\n" +
			"  reeve config set prod --api-key - < key.txt",
		Args: exactly(1, "one profile"),
		RunE: func(cmd *cobra.Command, args []string) error {
			given, err := c.givenSettings(cmd, &p)
			if err != nil {
				return err
			}
			return c.changeProfiles(func(file *profile.File) (string, error) {
				name := args[0]
				if err := profile.CheckName(name); err != nil {
					return "", &coded{Usage, err}
				}
				kept, there := file.Profiles[name]
				for _, set := range given {
					set(&kept)
				}
				if err := kept.Check(); err != nil {
					return "", usage("profile %s: %w", name, err)
				}
				if err := c.checkFiles(p); err != nil {
					return "", err
				}
				if file.Profiles == nil {
					file.Profiles = map[string]profile.Profile{}
				}
				file.Profiles[name] = kept
				if use {
					file.Current = name
				}
				done := fmt.Sprintf("profile %s is %s", name, map[bool]string{true: "changed", false: "made"}[there])
				if file.Current == name {
					return done + ", and is the current one", nil
				}
				return done + ": use it by --profile " + name + ", or always by `reeve config use " + name + "`", nil
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&p.URL, "url", "", "the registry's URL")
	f.StringVar(&p.APIKey, "api-key", "", "the key; - reads it from standard input")
	f.StringVar(&p.APIKeyFile, "api-key-file", "", "a file that holds the key")
	f.StringVar(&p.APIKeyEnv, "api-key-env", "", "a variable that holds the key")
	f.StringVar(&p.CA, "ca", "", "a PEM file with who vouches for the registry's certificate, instead of the system's")
	f.BoolVar(&use, "use", false, "make it the current profile")
	cmd.ValidArgsFunction = c.completeProfiles
	return alone(cmd)
}

// givenSettings are the changes that the flags of `config set` ask for.
func (c *command) givenSettings(cmd *cobra.Command, p *profile.Profile) ([]func(*profile.Profile), error) {
	var keys int
	for _, name := range []string{"api-key", "api-key-file", "api-key-env"} {
		if f := cmd.Flags().Lookup(name); f.Changed && f.Value.String() != "" {
			keys++
		}
	}
	if keys > 1 {
		return nil, usage("keep one of --api-key, --api-key-file and --api-key-env")
	}
	if p.APIKey == "-" {
		b, err := c.read("-")
		if err != nil {
			return nil, failure(Failed, "read the key: %w", err)
		}
		if p.APIKey = strings.TrimSpace(string(b)); p.APIKey == "" || strings.ContainsAny(p.APIKey, "\r\n") {
			return nil, usage("--api-key -: standard input doesn't hold one line with a key")
		}
	}
	for _, path := range []*string{&p.APIKeyFile, &p.CA} {
		if *path == "" {
			continue
		}
		var err error
		if *path, err = filepath.Abs(*path); err != nil { // a profile is used from anywhere
			return nil, err
		}
	}
	withoutKey := func(to *profile.Profile) { to.APIKey, to.APIKeyFile, to.APIKeyEnv = "", "", "" }
	var given []func(*profile.Profile)
	for name, set := range map[string]func(*profile.Profile){
		"url":          func(to *profile.Profile) { to.URL = p.URL },
		"ca":           func(to *profile.Profile) { to.CA = p.CA },
		"api-key":      func(to *profile.Profile) { withoutKey(to); to.APIKey = p.APIKey },
		"api-key-file": func(to *profile.Profile) { withoutKey(to); to.APIKeyFile = p.APIKeyFile },
		"api-key-env":  func(to *profile.Profile) { withoutKey(to); to.APIKeyEnv = p.APIKeyEnv },
	} {
		if f := cmd.Flags().Lookup(name); f.Changed && (keys == 0 || !strings.HasPrefix(name, "api-key") || f.Value.String() != "") {
			given = append(given, set)
		}
	}
	return given, nil
}

// checkFiles refuses files that are given and can't be used.
func (c *command) checkFiles(given profile.Profile) error {
	if given.APIKeyFile != "" {
		if _, err := (profile.Profile{APIKeyFile: given.APIKeyFile}).Key(c.variable); err != nil {
			return usage("--api-key-file: %w", err)
		}
	}
	if given.CA == "" {
		return nil
	}
	if _, err := roots(given.CA); err != nil {
		return usage("--ca: %w", err)
	}
	return nil
}

// changeProfiles reads the file, changes it and writes it, and says what was done.
func (c *command) changeProfiles(change func(*profile.File) (string, error)) error {
	path, err := profile.Path(c.variable)
	if err != nil {
		return failure(Failed, "%w", err)
	}
	file, err := c.profiles()
	if err != nil {
		return err
	}
	done, err := change(&file)
	if err != nil {
		return err
	}
	if err := file.Write(path); err != nil {
		return failure(Failed, "write the profiles: %w", err)
	}
	_, _ = fmt.Fprintln(c.Out, done)
	return nil
}

func (c *command) configUse() *cobra.Command {
	cmd := &cobra.Command{
		Use: "use NAME", Short: "Make a profile the current one", Args: exactly(1, "one profile"),
		Example: "  reeve config use prod",
		RunE: func(_ *cobra.Command, args []string) error {
			return c.changeProfiles(func(file *profile.File) (string, error) {
				p, err := find(*file, args[0])
				file.Current = args[0]
				return fmt.Sprintf("%s is the current profile: %s", args[0], p.URL), err
			})
		},
	}
	cmd.ValidArgsFunction = c.completeProfiles
	return alone(cmd)
}

func (c *command) configDelete() *cobra.Command {
	cmd := &cobra.Command{
		Use: "delete NAME", Short: "Delete a profile", Args: exactly(1, "one profile"),
		Example: "  reeve config delete prod",
		RunE: func(_ *cobra.Command, args []string) error {
			return c.changeProfiles(func(file *profile.File) (string, error) {
				if _, err := find(*file, args[0]); err != nil {
					return "", err
				}
				delete(file.Profiles, args[0])
				done := "profile " + args[0] + " is deleted"
				if file.Current == args[0] {
					file.Current = ""
					done += ", and none is current"
				}
				return done, nil
			})
		},
	}
	cmd.ValidArgsFunction = c.completeProfiles
	return alone(cmd)
}

func (c *command) configPath() *cobra.Command {
	return alone(&cobra.Command{
		Use: "path", Short: "Say where the profiles are kept", Args: exactly(0, "no arguments"),
		Example: "  reeve config path",
		RunE: func(*cobra.Command, []string) error {
			path, err := profile.Path(c.variable)
			if err != nil {
				return failure(Failed, "%w", err)
			}
			_, _ = fmt.Fprintln(c.Out, path)
			return nil
		},
	})
}
