<?php

declare(strict_types=1);

// A page that answers with a built RoadRunner. It says what to build and ends; velox-sidecar lets
// this worker go, has Velox build, and sends the file as the answer to this very request.

if (!isset($_SERVER['VELOX_SIDECAR'])) {
    // No sidecar in front, or no server_url in its configuration: nobody would take the header.
    http_response_code(503);
    header('Content-Type: text/plain');
    echo "Builds are not available: no velox-sidecar in front of PHP-FPM.\n";
    return;
}

$build = [
    'rr_version' => 'v2025.1.2',
    'target_platform' => ['os' => 'linux', 'arch' => 'amd64'],
    'plugins' => [
        ['module_name' => 'github.com/roadrunner-server/http/v5', 'tag' => 'v5.2.7'],
        ['module_name' => 'github.com/roadrunner-server/grpc/v5', 'tag' => 'v5.1.0'],
    ],
];

header('X-Velox-Build: true');
header('Content-Type: application/json');
echo json_encode($build, JSON_THROW_ON_ERROR | JSON_UNESCAPED_SLASHES);
