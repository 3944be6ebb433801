<?php
// A build request: members in ?json=, on top of a valid one; ?raw= replaces it altogether. ?log= is
// written to the log, which is FCGI_STDERR.
$build = json_decode($_GET['json'] ?? '{}', true) + [
    'rr_version' => 'v2025.1.2',
    'target_platform' => ['os' => 'linux', 'arch' => 'amd64'],
    'plugins' => [['module_name' => 'github.com/roadrunner-server/http/v5', 'tag' => 'v5.2.7']],
];
if (isset($_GET['log'])) {
    error_log($_GET['log']);
}
header('X-Velox-Build: true');
header('Content-Type: application/json');
header('Cache-Control: private');
setcookie('session', 'kept');
setcookie('second', 'kept, too');
echo $_GET['raw'] ?? json_encode($build, JSON_UNESCAPED_SLASHES);
