package rawmessage

import "bytes"

// splitMultipart returns what stands between the boundaries, of no more parts than are too many.
func splitMultipart(body []byte, boundary string) (parts [][]byte) {
	eachPart(body, boundary, func(part []byte) bool {
		parts = append(parts, part)
		return len(parts) <= maxRawParts
	})
	return parts
}

// hasParts reports whether there are boundaries in the body of a multipart.
func hasParts(body []byte, boundary string) bool {
	found := false
	eachPart(body, boundary, func([]byte) bool {
		found = true
		return false
	})
	return found
}

func eachPart(body []byte, boundary string, do func(part []byte) (more bool)) {
	if boundary == "" {
		return
	}
	delimiter := []byte("--" + boundary)
	start := -1 // of the current part
	for pos := 0; pos < len(body); {
		line, end := body[pos:], len(body)
		if i := bytes.IndexByte(line, '\n'); i >= 0 {
			line, end = line[:i], pos+i+1
		}
		rest, found := bytes.CutPrefix(bytes.TrimRight(line, " \t\r"), delimiter)
		last := string(rest) == "--"
		if found && (last || len(rest) == 0) {
			// The line end before a boundary belongs to the boundary.
			if start >= 0 && !do(bytes.TrimSuffix(bytes.TrimSuffix(body[start:pos], []byte("\n")), []byte("\r"))) || last {
				return
			}
			start = end
		}
		pos = end
	}
	if start >= 0 {
		do(body[start:])
	}
}
