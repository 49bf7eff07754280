package dkim

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/internal/testserver"
)

// zone is a file with the records of keys, as OpenDKIM reads them in place of the DNS (TestPublicKeys).
func zone(t *testing.T, keys []Key) string {
	t.Helper()
	var b strings.Builder
	for _, k := range keys {
		name, text := k.Record()
		fmt.Fprintf(&b, "%s %s\n", name, text)
	}
	return file(t, "zone", b.String())
}

func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestVerifiers_opendkim: the verifier that most Postfix have accepts every kind of message, with both kinds of keys.
func TestVerifiers_opendkim(t *testing.T) {
	t.Parallel()
	path, err := testserver.LookPath("opendkim")
	if err != nil {
		testserver.Missing(t, "install opendkim (Debian: apt-get install opendkim)")
	}
	conf := file(t, "opendkim.conf", "Mode v\nSyslog no\nAlwaysAddARHeader yes\nTestPublicKeys "+zone(t, bothKeys())+"\n")
	judge := func(message []byte) string {
		if !strings.HasSuffix(string(message), "\r\n") {
			message = append(message, "\r\n"...) // as it is in SMTP
		}
		out, err := exec.CommandContext(t.Context(), path, "-x", conf, "-vv", "-t", file(t, "message", string(message))).CombinedOutput()
		if err != nil {
			t.Errorf("opendkim: %v\n%s", err, out)
		}
		return string(out)
	}
	for name, m := range testMessages() {
		if out := judge(signed(t, bothKeys(), m)); strings.Count(out, "dkim=pass") != 2 {
			t.Errorf("%s:\n%s", name, out)
		}
	}
	tampered := strings.Replace(string(signed(t, bothKeys(), message())), "works", "fails", 1)
	if out := judge([]byte(tampered)); strings.Contains(out, "dkim=pass") {
		t.Errorf("it accepts anything:\n%s", out)
	}
}

// dkimpy verifies each of the files that it is given, and says how many of its signatures are good.
const dkimpy = `
import dkim, json, sys
zone = json.load(open(sys.argv[1]))
def txt(name, timeout=5):
    return zone.get(name.decode().rstrip(".").lower(), "").encode()
result = {}
def good(message, i):
    try:
        return dkim.DKIM(message).verify(idx=i, dnsfunc=txt)
    except dkim.DKIMException:
        return False
for path in sys.argv[2:]:
    message = open(path, "rb").read()
    result[path] = sum(good(message, i) for i in range(2))
print(json.dumps(result))
`

// TestVerifiers_dkimpy: so does the verifier of Python.
func TestVerifiers_dkimpy(t *testing.T) {
	t.Parallel()
	const python = "/usr/bin/python3"
	if err := exec.CommandContext(t.Context(), python, "-c", "import dkim, nacl").Run(); err != nil {
		testserver.Missing(t, "install dkimpy (Debian: apt-get install python3-dkim python3-nacl)")
	}
	records := map[string]string{}
	for _, k := range bothKeys() {
		name, text := k.Record()
		records[name] = text
	}
	text, _ := json.Marshal(records)
	args := []string{"-c", dkimpy, file(t, "zone", string(text))}
	paths := map[string]string{}
	for name, m := range testMessages() {
		path := file(t, "message", string(signed(t, bothKeys(), m)))
		paths[path] = name
		args = append(args, path)
	}
	tampered := file(t, "message", strings.Replace(string(signed(t, bothKeys(), message())), "works", "fails", 1))
	out, err := exec.CommandContext(t.Context(), python, append(args, tampered)...).Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr(err))
	}
	var good map[string]int
	if err := json.Unmarshal(out, &good); err != nil {
		t.Fatal(err)
	}
	for path, name := range paths {
		if good[path] != 2 {
			t.Errorf("%s: %d signatures are good", name, good[path])
		}
	}
	if good[tampered] != 0 {
		t.Error("it accepts anything")
	}
}

func stderr(err error) string {
	if exit, ok := err.(*exec.ExitError); ok { //nolint:errorlint // for a log
		return string(exit.Stderr)
	}
	return ""
}
