package cli

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/reeve-run/reeve/services/reeve/internal/profile"
)

// home is a directory for profiles, and the environment that names it.
func home(t *testing.T, file profile.File) (path string, environ []string) {
	t.Helper()
	dir := t.TempDir()
	path = filepath.Join(dir, "reeve", "config.yaml")
	if len(file.Profiles) > 0 {
		if err := file.Write(path); err != nil {
			t.Fatal(err)
		}
	}
	return path, []string{"XDG_CONFIG_HOME=" + dir}
}

func TestWhoSaysWhereTheRegistryIs(t *testing.T) {
	_, environ := home(t, profile.File{Current: "cur", Profiles: map[string]profile.Profile{
		"cur":   {URL: "http://cur", APIKey: "cur-key"},
		"other": {URL: "http://other", APIKey: "other-key"},
		"bare":  {URL: "http://bare"},
	}})
	for _, tt := range []struct{ environ, args, url, from, key string }{
		{"", "", "http://cur", "profile cur", "profile cur (api_key)"},
		{"REEVE_API_KEY=k", "", "http://cur", "profile cur", "REEVE_API_KEY"},
		{"REEVE_URL=http://env", "", "http://env", "REEVE_URL", ""},
		{"REEVE_URL=http://env REEVE_API_KEY=k", "", "http://env", "REEVE_URL", "REEVE_API_KEY"},
		{"", "--url http://flag", "http://flag", "--url", ""},
		{"REEVE_URL=http://env REEVE_API_KEY=k", "--url http://flag", "http://flag", "--url", "REEVE_API_KEY"},
		{"REEVE_PROFILE=other", "", "http://other", "profile other", "profile other (api_key)"},
		{"REEVE_PROFILE=other REEVE_URL=http://env", "", "http://env", "REEVE_URL", "profile other (api_key)"},
		{"REEVE_PROFILE=other", "--url http://flag", "http://flag", "--url", ""},
		{"REEVE_PROFILE=other REEVE_API_KEY=k", "", "http://other", "profile other", "REEVE_API_KEY"},
		{"REEVE_PROFILE=bare", "--profile other", "http://other", "profile other", "profile other (api_key)"},
		{"REEVE_URL=http://env REEVE_API_KEY=k", "--profile other", "http://other", "profile other", "profile other (api_key)"},
		{"REEVE_API_KEY=k", "--profile bare", "http://bare", "profile bare", "REEVE_API_KEY"},
		{"", "--profile other --url http://flag", "http://flag", "--url", "profile other (api_key)"},
	} {
		s := System{Environ: append(strings.Fields(tt.environ), environ...)}
		got := execute(context.Background(), s, append(strings.Fields(tt.args), "config", "get", "-o", "json")...)
		var conn connection
		if err := json.Unmarshal([]byte(got.out), &conn); err != nil || conn.URL != tt.url || conn.URLFrom != tt.from || conn.KeyFrom != tt.key || got.err != "" {
			t.Errorf("%s %s: %v, %+v", tt.environ, tt.args, err, got)
		}
		if strings.Contains(got.out, "-key\"") {
			t.Errorf("a key is shown: %s", got.out)
		}
	}
}

func TestWithoutAProfileTheDefaultIsAsked(t *testing.T) {
	_, environ := home(t, profile.File{})
	for _, environ := range [][]string{environ, nil} { // nil: there is no place for profiles
		got := execute(context.Background(), System{Environ: environ}, "config", "get")
		if got.code != Done || !strings.Contains(got.out, "http://127.0.0.1:8765") || !strings.Contains(got.out, "the default") {
			t.Errorf("%+v", got)
		}
	}
}

func TestTheKeyOfAProfileIsSentToItsRegistryAlone(t *testing.T) {
	f := newFake()
	server := httptest.NewServer(f.handler())
	defer server.Close()
	_, environ := home(t, profile.File{Current: "own", Profiles: map[string]profile.Profile{"own": {URL: server.URL, APIKey: "k"}}})
	for _, tt := range []struct{ args, key string }{{"health", "Bearer k"}, {"health --url " + server.URL, ""}} {
		f.keys = nil
		got := execute(context.Background(), System{Environ: environ}, strings.Fields(tt.args)...)
		if got.code != Done || len(f.keys) != 1 || f.keys[0] != tt.key {
			t.Errorf("%s: sent %q: %+v", tt.args, f.keys, got)
		}
	}
}

func TestProfilesAreMadeChangedAndDeleted(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, text := range map[string]string{"ca.pem": caPEM(t), "none.pem": "x\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path, environ := home(t, profile.File{})
	for _, step := range []struct {
		args, input string
		code        int
		says        string
	}{
		{"config list -o jsonl", "", 0, ""},
		{"config set prod", "", 2, "it has no url"},
		{"config set -x --url http://x", "", 2, "unknown shorthand flag"},
		{"config set a/b --url http://x", "", 2, "is no name for a profile"},
		{"config set prod --url x", "", 2, "its url is no URL"},
		{"config set prod --url https://x --ca nowhere.pem", "", 2, "--ca: read the CA: open /"},
		{"config set prod --url https://x --ca none.pem", "", 2, "none.pem holds no certificate"},
		{"config set prod --url https://x --api-key-file nowhere", "", 2, "--api-key-file: read the key: open /"},
		{"config set prod --url https://x --api-key a --api-key-env B", "", 2, "keep one of"},
		{"config set prod --url https://x --api-key - --ca ca.pem", "two\nlines\n", 2, "one line with a key"},
		{"config set prod --url https://x --api-key - --ca ca.pem", "s3cret\n", 0, "profile prod is made: use it by --profile prod"},
		{"config get prod", "", 0, "Key from:  api_key"},
		{"config use prd", "", 3, "did you mean prod? there are prod"},
		{"config use prod", "", 0, "prod is the current profile: https://x"},
		{"config set prod --api-key-env PROD_KEY", "", 0, "profile prod is changed, and is the current one"},
		{"config get prod", "", 0, "variable PROD_KEY"},
		{"config set prod --api-key-env=", "", 0, "changed"},
		{"config get prod -o jsonl", "", 0, `"current":true,"url":"https://x","ca":"/`},
		{"config set local --url http://127.0.0.1:8765 --use", "", 0, "profile local is made, and is the current one"},
		{"config list", "", 0, "*   local   http://127.0.0.1:8765"},
		{"config delete local", "", 0, "profile local is deleted, and none is current"},
		{"config delete local", "", 3, "there are prod"},
		{"config get local --profile prod", "", 2, "leave out --url and --profile"},
		{"config path", "", 0, path},
		{"config set prod --profile x", "", 2, "asks no registry: leave out --profile"},
		{"dev --url http://x", "", 2, "asks no registry: leave out --url"},
	} {
		got := execute(context.Background(), System{Environ: environ, In: strings.NewReader(step.input)}, strings.Fields(step.args)...)
		if said := got.out + got.err; got.code != step.code || !strings.Contains(said, step.says) || strings.Contains(said, "s3cret") {
			t.Fatalf("%s: %+v", step.args, got)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestAProfileThatIsNotThereIsNotFound(t *testing.T) {
	_, environ := home(t, profile.File{Profiles: map[string]profile.Profile{"prod": {URL: "http://x"}, "stage": {URL: "http://y"}}})
	for _, tt := range []struct {
		environ, args, says string
	}{
		{"", "--profile prd agent list", "there is no profile prd: did you mean prod? there are prod, stage"},
		{"REEVE_PROFILE=elsewhere", "agent list", "there is no profile elsewhere: there are prod, stage"},
		{"XDG_CONFIG_HOME=/nowhere", "--profile prd agent list", "there is no profile prd, nor any other: make it by `reeve config set prd --url URL`"},
	} {
		got := execute(context.Background(), System{Environ: append(environ, strings.Fields(tt.environ)...)}, strings.Fields(tt.args)...)
		if got.code != NotFound || !strings.Contains(got.err, tt.says) {
			t.Errorf("%s %s: %+v", tt.environ, tt.args, got)
		}
	}
}

func TestARegistryBehindTLS(t *testing.T) {
	f := newFake()
	server := httptest.NewUnstartedServer(f.handler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // of the handshakes that are meant to fail
	server.StartTLS()
	defer server.Close()
	plain := httptest.NewServer(f.handler())
	defer plain.Close()
	dir := t.TempDir()
	ca, empty := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "empty.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	https := strings.Replace(plain.URL, "http:", "https:", 1)
	_, environ := home(t, profile.File{Profiles: map[string]profile.Profile{
		"good": {URL: server.URL, CA: ca}, "unknown": {URL: server.URL}, "empty": {URL: server.URL, CA: empty}, "none": {URL: server.URL, CA: ca + "x"},
		"name": {URL: strings.Replace(server.URL, "127.0.0.1", "localhost", 1), CA: ca}, "plain": {URL: https},
		"tls": {URL: strings.Replace(server.URL, "https:", "http:", 1)},
	}})
	for name, want := range map[string]struct {
		code int
		says string
	}{
		"good":    {Done, ""},
		"unknown": {Unreachable, "name the CA by `reeve config set PROFILE --ca FILE`"},
		"empty":   {Failed, "holds no certificate"},
		"none":    {Failed, "read the CA"},
		"name":    {Unreachable, "its certificate is for another name"},
		"plain":   {Unreachable, "write http:// in the URL; the URL is from profile plain"},
		"tls":     {Failed, "write https:// in the URL"},
	} {
		got := execute(context.Background(), System{Environ: environ}, "--profile", name, "agent", "list")
		if got.code != want.code || !strings.Contains(got.err, want.says) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// authority makes certificates of its own.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func (a *authority) issue(t *testing.T, isCA bool, notAfter time.Time) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: notAfter, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: isCA, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, Subject: pkix.Name{CommonName: "reeve test"}}
	parent, signer := template, key
	if a.cert != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert == nil {
		if a.cert, err = x509.ParseCertificate(der); err != nil {
			t.Fatal(err)
		}
		a.key = key
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// caPEM is the file of a CA.
func caPEM(t *testing.T) string {
	t.Helper()
	cert := new(authority).issue(t, true, time.Now().Add(time.Hour))
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}))
}

func TestAnExpiredCertificateIsToldWithItsDates(t *testing.T) {
	var a authority
	a.issue(t, true, time.Now().Add(time.Hour))
	expired := a.issue(t, false, time.Now().Add(-time.Hour))
	server := httptest.NewUnstartedServer(newFake().handler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{expired}, MinVersion: tls.VersionTLS12}
	server.StartTLS()
	defer server.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	_, environ := home(t, profile.File{Profiles: map[string]profile.Profile{"p": {URL: server.URL, CA: ca}}})
	got := execute(t.Context(), System{Environ: environ}, "--profile", "p", "agent", "list")
	if got.code != Unreachable || !strings.Contains(got.err, "its certificate is valid from ") || !strings.Contains(got.err, "renew it, or set the clock") {
		t.Errorf("%+v", got)
	}
}
