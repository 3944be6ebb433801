<?php
header('X-Velox-Build: true');
no_such_function();
