package security

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pair makes a self-signed certificate and its key as files.
func pair(t *testing.T, name string, from, until time.Time) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: from, NotAfter: until, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return write(t, name+".crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		write(t, name+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}))
}

func write(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestWhatCantWorkIsRefusedByItsVariableWithTheRemedy(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	good, goodKey := pair(t, "good", now.Add(-time.Hour), now.Add(time.Hour))
	_, otherKey := pair(t, "other", now.Add(-time.Hour), now.Add(time.Hour))
	old, oldKey := pair(t, "old", now.Add(-48*time.Hour), now.Add(-24*time.Hour))
	early, earlyKey := pair(t, "early", now.Add(24*time.Hour), now.Add(48*time.Hour))
	noPEM := write(t, "no.pem", []byte("hello"))
	encrypted := write(t, "encrypted.key", pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")}))
	for name, c := range map[string]struct {
		config Config
		says   string // "" where nothing is wrong
	}{
		"nothing":                {Config{}, ""},
		"all of TLS":             {Config{TLSCA: good, TLSCert: good, TLSKey: goodKey}, ""},
		"system":                 {Config{TLSCA: "system"}, ""},
		"no CA file":             {Config{TLSCA: "/nowhere/ca.pem"}, "REEVE_KAFKA_TLS_CA: /nowhere/ca.pem isn't there"},
		"CA is no PEM":           {Config{TLSCA: noPEM}, "holds no PEM certificate"},
		"CA is a key":            {Config{TLSCA: goodKey}, "holds no PEM certificate"},
		"CA expired":             {Config{TLSCA: old}, `"old", which expired on 2026-04-30T12:00:00Z`},
		"certificate alone":      {Config{TLSCert: good}, "REEVE_KAFKA_TLS_KEY: is not set"},
		"key alone":              {Config{TLSKey: goodKey}, "REEVE_KAFKA_TLS_CERT: is not set"},
		"another's key":          {Config{TLSCert: good, TLSKey: otherKey}, "is no key of the certificate"},
		"expired":                {Config{TLSCert: old, TLSKey: oldKey}, `REEVE_KAFKA_TLS_CERT: ` + old + ` holds the certificate of "old", which expired on 2026-04-30T12:00:00Z: get another one`},
		"not yet valid":          {Config{TLSCert: early, TLSKey: earlyKey}, "valid only from 2026-05-02T12:00:00Z"},
		"encrypted key":          {Config{TLSCert: good, TLSKey: encrypted}, "is encrypted"},
		"key is no PEM":          {Config{TLSCert: good, TLSKey: noPEM}, "holds no PEM key"},
		"PLAIN":                  {Config{Mechanism: Plain, Username: "u", Password: "p"}, ""},
		"a token needs no user":  {Config{Mechanism: OAuthBearer, Password: "p"}, ""},
		"misspelt":               {Config{Mechanism: "SCRAM-SHA256", Username: "u", Password: "p"}, "did you mean SCRAM-SHA-256?"},
		"misspelt otherwise":     {Config{Mechanism: "OAUTH", Username: "u", Password: "p"}, "did you mean OAUTHBEARER?"},
		"no user":                {Config{Mechanism: Plain, Password: "p"}, "REEVE_KAFKA_SASL_USERNAME: is not set: PLAIN needs a user"},
		"no password":            {Config{Mechanism: ScramSHA512, Username: "u"}, "REEVE_KAFKA_SASL_PASSWORD: is not set: give the password"},
		"no token":               {Config{Mechanism: OAuthBearer}, "give the token"},
		"no mechanism":           {Config{Username: "u"}, "REEVE_KAFKA_SASL_MECHANISM: is not set"},
		"password file missing":  {Config{Mechanism: Plain, Username: "u", Password: "file:/nowhere/pw"}, "/nowhere/pw"},
		"password file is empty": {Config{Mechanism: Plain, Username: "u", Password: Secret("file:" + write(t, "empty", []byte("\n")))}, "is empty"},
	} {
		err := c.config.Check(now)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
}

func TestASecretIsNeverPrinted(t *testing.T) {
	c := Config{Mechanism: Plain, Username: "u", Password: "hunter2"}
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", slog.Any("config", c), slog.Any("password", c.Password))
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", slog.Any("config", c), slog.Any("password", c.Password))
	for _, text := range []string{fmt.Sprintf("%v %+v %#v %s", c, c, c, c.Password), string(b), log.String()} {
		if strings.Contains(text, "hunter2") {
			t.Error(text)
		}
	}
	if p, err := c.Password.Read(); p != "hunter2" || err != nil {
		t.Error(p, err)
	}
}

func TestASecretInAFileIsReadAtEveryAuthentication(t *testing.T) {
	path := write(t, "token", []byte("one\n"))
	c := Config{Mechanism: OAuthBearer, Password: Secret("file:" + path)}
	first := func() string {
		_, b, err := c.mechanism().Authenticate(t.Context(), "broker")
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if got := first(); !strings.Contains(got, "auth=Bearer one\x01") {
		t.Errorf("%q", got)
	}
	if err := os.WriteFile(path, []byte("two"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := first(); !strings.Contains(got, "auth=Bearer two\x01") {
		t.Errorf("%q", got)
	}
}

func TestTheProtocolIsNamedAsKafkaNamesIt(t *testing.T) {
	for want, c := range map[string]Config{"PLAINTEXT": {}, "SSL": {TLSCA: SystemCA}, "SASL_PLAINTEXT": {Mechanism: Plain}, "SASL_SSL": {TLSCert: "c", Mechanism: Plain}} {
		if got := c.Protocol(); got != want {
			t.Errorf("%+v is %s, want %s", c, got, want)
		}
	}
	if len((Config{Mechanism: Plain}).Warnings()) != 1 || len((Config{Mechanism: ScramSHA256}).Warnings()) != 0 || len((Config{Mechanism: Plain, TLSCA: SystemCA}).Warnings()) != 0 {
		t.Error("a readable password is warned of, and nothing else")
	}
}
