// A server that speaks S3 and checks signatures, for integration tests: objects live in memory, on loopback.
package main

import (
	"context"
	"log"
	"net/http"
	"os"

	"github.com/rclone/gofakes3"
	"github.com/rclone/gofakes3/s3mem"
)

func main() {
	setting := func(name string) string {
		value := os.Getenv(name)
		if value == "" {
			log.Fatalf("%s is not set", name)
		}
		return value
	}
	backend := s3mem.New()
	if err := backend.CreateBucket(context.Background(), setting("OBJECTS_BUCKET")); err != nil {
		log.Fatal(err)
	}
	keys := map[string]string{setting("OBJECTS_ACCESS_KEY_ID"): setting("OBJECTS_SECRET_ACCESS_KEY")}
	server := gofakes3.New(backend, gofakes3.WithV4Auth(keys), gofakes3.WithGlobalLog()).Server()
	address := setting("OBJECTS_ADDRESS")
	if certificate := os.Getenv("OBJECTS_TLS_CERT"); certificate != "" {
		log.Fatal(http.ListenAndServeTLS(address, certificate, setting("OBJECTS_TLS_KEY"), server))
	}
	log.Fatal(http.ListenAndServe(address, server))
}
