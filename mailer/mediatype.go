package mailer

import (
	"bytes"
	"maps"
	"mime"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"
)

// mediaType is a Content-Type, read.
type mediaType struct {
	value  string // "text/plain", in lower case
	params map[string]string
}

const octetStream = "application/octet-stream"

// maxMediaType bounds what an author may write, so that no header line made of
// it, encoded, is too long.
const maxMediaType = 300

// parseMediaType reads what an author wrote as the type of field.
func parseMediaType(field, s string) (mediaType, error) {
	if !isClean(s, withoutTab) {
		return mediaType{}, checkText(field, s, withoutTab)
	}
	if kind, subtype, ok := strings.Cut(s, "/"); ok && isToken(kind) && isToken(subtype) && len(s) <= maxMediaType {
		return mediaType{value: strings.ToLower(s)}, nil
	}
	value, params, err := mime.ParseMediaType(s)
	kind, subtype, _ := strings.Cut(value, "/")
	if err != nil || !isToken(kind) || !isToken(subtype) || len(s) > maxMediaType {
		return mediaType{}, &InvalidMessageError{Field: field, Reason: "is not a media type such as text/html"}
	}
	for name, value := range params { // percent-encoded text may hold what the outer one may not
		if !isToken(name) || !isClean(value, withoutTab) {
			return mediaType{}, &BadHeaderError{Field: field, Reason: "has a bad parameter"}
		}
	}
	return mediaType{value: value, params: params}, nil
}

func (t mediaType) isText() bool      { return strings.HasPrefix(t.value, "text/") }
func (t mediaType) isMessage() bool   { return strings.HasPrefix(t.value, "message/") }
func (t mediaType) isMultipart() bool { return strings.HasPrefix(t.value, "multipart/") }

// with returns the type with a parameter set.
func (t mediaType) with(name, value string) mediaType {
	params := make(map[string]string, len(t.params)+1)
	maps.Copy(params, t.params)
	params[name] = value
	return mediaType{value: t.value, params: params}
}

// contentType writes the Content-Type field.
func (h *headerWriter) contentType(t mediaType) { h.contentParams("Content-Type", t) }

// contentParams writes a field with parameters, in the order of their names.
func (h *headerWriter) contentParams(field string, t mediaType) {
	h.begin(field, field)
	h.put(" ", t.value)
	for _, name := range slices.Sorted(maps.Keys(t.params)) {
		h.param(name, t.params[name])
	}
	h.end()
}

// guessType finds the type of an attachment whose author gave none: by the
// extension of its name, then by its content.
func guessType(filename string, content []byte) mediaType {
	if ext := strings.ToLower(filepath.Ext(filename)); ext != "" {
		if t := typeByExtension(ext); t != "" {
			return mediaType{value: t}
		}
		if t, _, err := mime.ParseMediaType(mime.TypeByExtension(ext)); err == nil {
			return mediaType{value: t}
		}
	}
	return mediaType{value: typeByContent(content)}
}

// typeByExtension knows the usual ones, so that all machines agree on them;
// mime.TypeByExtension reads the tables of the machine it runs on.
func typeByExtension(ext string) string {
	switch ext {
	case ".txt", ".text", ".log":
		return "text/plain"
	case ".htm", ".html":
		return "text/html"
	case ".css":
		return "text/css"
	case ".csv":
		return "text/csv"
	case ".md":
		return "text/markdown"
	case ".xml":
		return "text/xml"
	case ".ics":
		return "text/calendar"
	case ".vcf":
		return "text/vcard"
	case ".js", ".mjs":
		return "text/javascript"
	case ".json":
		return "application/json"
	case ".pdf":
		return "application/pdf"
	case ".rtf":
		return "application/rtf"
	case ".zip":
		return "application/zip"
	case ".gz", ".tgz":
		return "application/gzip"
	case ".bz2":
		return "application/x-bzip2"
	case ".xz":
		return "application/x-xz"
	case ".tar":
		return "application/x-tar"
	case ".7z":
		return "application/x-7z-compressed"
	case ".doc":
		return "application/msword"
	case ".xls":
		return "application/vnd.ms-excel"
	case ".ppt":
		return "application/vnd.ms-powerpoint"
	case ".docx":
		return "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
	case ".xlsx":
		return "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
	case ".pptx":
		return "application/vnd.openxmlformats-officedocument.presentationml.presentation"
	case ".odt":
		return "application/vnd.oasis.opendocument.text"
	case ".ods":
		return "application/vnd.oasis.opendocument.spreadsheet"
	case ".epub":
		return "application/epub+zip"
	case ".p7s":
		return "application/pkcs7-signature"
	case ".png":
		return "image/png"
	case ".jpg", ".jpeg":
		return "image/jpeg"
	case ".gif":
		return "image/gif"
	case ".webp":
		return "image/webp"
	case ".svg":
		return "image/svg+xml"
	case ".bmp":
		return "image/bmp"
	case ".tif", ".tiff":
		return "image/tiff"
	case ".ico":
		return "image/vnd.microsoft.icon"
	case ".heic":
		return "image/heic"
	case ".mp3":
		return "audio/mpeg"
	case ".wav":
		return "audio/x-wav"
	case ".ogg":
		return "audio/ogg"
	case ".m4a":
		return "audio/mp4"
	case ".mp4":
		return "video/mp4"
	case ".mov":
		return "video/quicktime"
	case ".webm":
		return "video/webm"
	case ".eml":
		return "message/rfc822"
	case ".bin", ".exe", ".dll", ".so", ".iso":
		return octetStream
	}
	return ""
}

// typeByContent knows a few signatures, and text when it sees it. net/http has a
// longer list, but a program that sends mail should not have to link a web server.
func typeByContent(content []byte) string {
	for _, s := range []struct{ magic, mime string }{
		{"%PDF-", "application/pdf"},
		{"\x89PNG\r\n\x1a\n", "image/png"},
		{"\xff\xd8\xff", "image/jpeg"},
		{"GIF87a", "image/gif"},
		{"GIF89a", "image/gif"},
		{"PK\x03\x04", "application/zip"},
		{"\x1f\x8b", "application/gzip"},
		{"<!DOCTYPE html", "text/html"},
		{"<html", "text/html"},
	} {
		if len(content) >= len(s.magic) && strings.EqualFold(string(content[:len(s.magic)]), s.magic) {
			return s.mime
		}
	}
	if len(content) >= 12 && string(content[:4]) == "RIFF" && string(content[8:12]) == "WEBP" {
		return "image/webp"
	}
	if len(content) > 0 && utf8.Valid(content) && !bytes.ContainsFunc(content, isBinary) {
		return "text/plain"
	}
	return octetStream
}

// isBinary is true for control characters that no text file has.
func isBinary(r rune) bool {
	return r < ' ' && r != '\t' && r != '\n' && r != '\r' && r != '\f' || r == 0x7f
}
