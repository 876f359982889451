package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"gocloud.dev/blob"
	_ "gocloud.dev/blob/fileblob" // file://
	_ "gocloud.dev/blob/memblob"  // mem://
	_ "gocloud.dev/blob/s3blob"   // s3://
)

// openBucket opens the bucket of snapshots; those of each group stand below its name,
// so groups may share a bucket. Closing it is the caller's.
func openBucket(ctx context.Context, c *Config) (*blob.Bucket, error) {
	address, err := bucketURL(c.Snapshots.Bucket)
	if err != nil {
		return nil, err
	}
	b, err := blob.OpenBucket(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("snapshots.bucket %s: %w%s", c.Snapshots.Bucket, err, bucketHint(address))
	}
	return blob.PrefixedBucket(b, c.Kafka.Group+"/"), nil
}

// bucketURL completes a folder's URL: it is made when it is missing, files are written
// beside their place (so that renaming them is atomic) and without attributes' files.
func bucketURL(address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", fmt.Errorf("snapshots.bucket: %w", err)
	}
	if u.Scheme != "file" {
		return address, nil
	}
	if u.Host != "" && u.Host != "." {
		return "", fmt.Errorf("snapshots.bucket %s: write file:///absolute/path or file://./relative/path", address)
	}
	path := u.Path
	if u.Host == "." {
		if path, err = filepath.Abs("." + u.Path); err != nil {
			return "", fmt.Errorf("snapshots.bucket %s: %w", address, err)
		}
	}
	q := u.Query()
	for key, value := range map[string]string{"create_dir": "true", "metadata": "skip", "no_tmp_dir": "true"} {
		if !q.Has(key) {
			q.Set(key, value)
		}
	}
	return (&url.URL{Scheme: "file", Path: filepath.ToSlash(path), RawQuery: q.Encode()}).String(), nil
}

// bucketHint tells what to do about stores that are not built in.
func bucketHint(address string) string {
	scheme, _, _ := strings.Cut(address, "://")
	switch scheme {
	case "gs":
		return "; Google Cloud Storage is built in by: go build -tags gcs"
	case "azblob":
		return "; Azure Blob Storage is built in by: go build -tags azure"
	case "s3":
		if os.Getenv("AWS_REGION") == "" {
			return "; give the region, as in s3://bucket?region=eu-west-1, and credentials as for the AWS command line"
		}
	}
	return ""
}
