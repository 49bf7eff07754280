package intake

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// ReadKeys reads a file of keys: a JSON object a line, as worker key new writes them. Empty lines and lines that begin with # are
// left out. The error names every line that is no key.
func ReadKeys(r io.Reader) (*Keys, error) {
	keys, lines := new(Keys), bufio.NewScanner(r)
	var wrong []error
	for number := 1; lines.Scan(); number++ {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		if err := keys.add(line); err != nil {
			wrong = append(wrong, fmt.Errorf("line %d: %w", number, err))
		}
	}
	if err := lines.Err(); err != nil {
		wrong = append(wrong, err)
	}
	if len(wrong) > 0 {
		return nil, errors.Join(wrong...)
	}
	return keys, nil
}

// ReadKeysFile is ReadKeys of the file with that name.
func ReadKeysFile(path string) (*Keys, error) {
	f, err := os.Open(path) //nolint:gosec // the operator names it
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	keys, err := ReadKeys(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return keys, nil
}

func (k *Keys) add(line []byte) error {
	var key Key
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&key); err != nil {
		return err
	}
	if d.More() {
		return errors.New("has something behind the key: each has its own line")
	}
	if err := key.check(); err != nil {
		return err
	}
	switch i := slices.IndexFunc(k.all, func(other Key) bool { return other.Name == key.Name || other.Hash == key.Hash }); {
	case i < 0:
	case k.all[i].Name == key.Name:
		return fmt.Errorf("name: there is a key %s already", key.Name)
	default:
		return fmt.Errorf("hash: is that of the key %s", k.all[i].Name)
	}
	k.all = append(k.all, key)
	return nil
}
